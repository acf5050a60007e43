"""A run as an object: its docs as arrays, its metrics, what it was, and each line as it was logged."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_eval_calibration.decisions import Decision, Wanted, decide
from lm_eval_calibration.decisions.candidates import Candidates
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import Null
from lm_eval_calibration.metrics.classwise import means_little
from lm_eval_calibration.metrics.fields import Fields
from lm_eval_calibration.metrics.group_errors import GroupErrors, group_errors
from lm_eval_calibration.plots import Vocabulary
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.records import Record, clusters_of, n_clusters
from lm_eval_calibration.records.clusters import IntIds
from lm_eval_calibration.records.display import counted, some
from lm_eval_calibration.results.candidates import candidates_of
from lm_eval_calibration.results.columns import ACC, columns
from lm_eval_calibration.results.configuration import Configuration
from lm_eval_calibration.results.doc_fields import fields_of
from lm_eval_calibration.results.forms.form import Sample
from lm_eval_calibration.results.grouping import groups_of, split_field, with_whole
from lm_eval_calibration.results.measured import (
    Measured,
    accuracy,
    measure,
    measure_null,
    metric_of,
    undefined,
)
from lm_eval_calibration.results.notebook import notebook_table
from lm_eval_calibration.results.reading import Lines, SamplesFile
from lm_eval_calibration.results.shown import model_name
from lm_eval_calibration.results.task_docs import TaskDocs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Run:
    """What a model did on some tasks, as it was logged. Made by :func:`~lm_eval_calibration.results.load_run`.

    Attributes:
        configuration: what was run: model, settings, tasks, versions.
        docs: task to its docs, by name.
        n_bins: bins of the binned metrics.
        left_out: stock tasks that could not be read, each with its reason.
    """

    def __init__(
        self, configuration: Configuration, docs: Mapping[str, TaskDocs], n_bins: int, left_out: Mapping[str, str]
    ) -> None:
        self.configuration = configuration
        self.docs = {name: docs[name] for name in sorted(docs)}
        self.n_bins = n_bins
        self.left_out = dict(left_out)

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Name of the model; of one in a folder, the folder's."""
        return model_name(self.configuration.model)

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that the numbers depend on."""
        return self.configuration.versions

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(self.docs)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Groups of the run with those of their tasks, directly or in groups within, that are here."""
        return self.configuration.groups_of(self.tasks)

    @cached_property
    def certificates(self) -> list[tuple[dict[str, Any], int]]:
        """How the numbers were obtained (backend, exact or not, dtype, versions), and of how many docs each."""
        together = sum((docs.certificates for docs in self.docs.values()), Counter[str]())
        return [(json.loads(text), n_docs) for text, n_docs in together.most_common()]

    @property
    def suspicions(self) -> tuple[str, ...]:
        """What was found to be wrong with the backend's numbers while it ran; normally nothing."""
        parts = [part for found, _ in self.certificates for part in (found, found.get("reference"))]
        told = (str(part["suspect"]) for part in parts if isinstance(part, Mapping) and part.get("suspect"))
        return tuple(dict.fromkeys(told))

    @property
    def notes(self) -> list[str]:
        """What every command says beside the numbers: what is left out, what means little, and why."""
        left_out = [f"{task} is left out: {reason}" for task, reason in self.left_out.items()]
        notes = [note for docs in self.docs.values() for note in docs.notes]
        alike = [(means_little(docs.columns.labels), name) for name, docs in self.docs.items()]
        for reason in dict.fromkeys(reason for reason, _ in alike if reason):
            names = [name for other, name in alike if other == reason]
            notes.append(f"{some(names)}: {reason}")
        return [*left_out, *notes]

    def __len__(self) -> int:
        return sum(map(len, self.docs.values()))

    def __repr__(self) -> str:
        return f"<Run of {self.model}: {counted(len(self))} of {counted(len(self.tasks), what='tasks')}>"

    # --- numbers -----------------------------------------------------------------------------------------------------

    def arrays(self, kind: str, tasks: str | Sequence[str] | None = None) -> tuple[Any, Any]:
        """Return the two arrays that metrics of a kind take, of docs with a sound gold label, by task and doc id.

        Args:
            kind: ``top_label`` (confidence, correct), ``choices`` (probs, labels) or ``full_vocabulary`` (gap_sums,
                n_positions).
            tasks: a task, a group, or several tasks; all of the run where not given.

        Raises:
            ValueError: a task without such arrays.
            UserError: no such task.
        """
        parts = [self.docs[task].columns.arrays(kind) for task in self.tasks_of(tasks)]
        return _concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def clusters(self, kind: str, tasks: str | Sequence[str] | None = None) -> IntIds | None:
        """Return the cluster of each doc of :meth:`arrays`, [N]; None where no doc is known to be drawn with others."""
        return clusters_of(self._ids(kind, tasks))

    def _ids(self, kind: str, tasks: str | Sequence[str] | None) -> IntIds:
        return np.concatenate([self.docs[task].columns.cluster_ids(kind) for task in self.tasks_of(tasks)])

    def n_clusters(self, tasks: str | Sequence[str] | None = None) -> int | None:
        """Return of how many clusters the docs of some tasks are; None where none is known to be drawn with others."""
        parts = [np.array(self.docs[task].clusters, dtype=np.uint64) for task in self.tasks_of(tasks)]
        return n_clusters(np.concatenate(parts))

    def metrics(
        self,
        tasks: str | Sequence[str] | None = None,
        *,
        names: Sequence[str] | None = None,
        with_stderr: bool = True,
    ) -> dict[str, Measured]:
        """Return metrics of the pooled docs of some tasks: value, standard error and 95% interval of each.

        A metric that these docs have no arrays for (``full_ece`` without token distributions, ``brier_score`` of
        generated answers) is nan and says why.

        Args:
            tasks: as in :meth:`arrays`.
            names: of the metrics; any of ``metrics.CATALOG``, and ``acc``. By default those that reports show.
            with_stderr: whether to compute standard errors, some of which take long; else they are nan.
        """
        n_docs = sum(len(self.docs[task]) for task in self.tasks_of(tasks))
        found = {}
        for name in columns("all") if names is None else names:
            if name == ACC:
                found[name] = self._accuracy(tasks)
                continue
            metric = metric_of(name, self.kinds(tasks))
            try:
                arrays, cluster = self.arrays(metric.kind, tasks), self.clusters(metric.kind, tasks)
                found[name] = measure(metric, arrays, self.n_bins, cluster=cluster, with_stderr=with_stderr)
            except ValueError as error:
                found[name] = undefined(str(error), n_docs)
        return found

    def _accuracy(self, tasks: str | Sequence[str] | None) -> Measured:
        """Share of right answers; a corpus has none."""
        docs = [self.docs[task] for task in self.tasks_of(tasks) if "corpus" not in self.docs[task].kinds]
        if not docs:
            return undefined("no docs")
        correct = np.concatenate([np.array(task.correct) == 1 for task in docs])
        ids = np.concatenate([np.array(task.clusters, dtype=np.uint64) for task in docs])
        return accuracy(correct, clusters_of(ids))

    def kinds(self, tasks: str | Sequence[str] | None = None) -> set[str]:
        """Return the kinds of docs there are among some tasks: ``multiple_choice``, ``generation``, ``corpus``."""
        return {kind for task in self.tasks_of(tasks) for kind in self.docs[task].kinds}

    def null(self, name: str, tasks: str | Sequence[str] | None = None) -> Null | None:
        """Return what a calibrated model would show of a metric on the same docs; None where that is undefined."""
        metric = metric_of(name, self.kinds(tasks))
        try:
            arrays, cluster = self.arrays(metric.kind, tasks), self.clusters(metric.kind, tasks)
            return measure_null(metric, arrays, self.n_bins, cluster=cluster)
        except ValueError:
            return None

    def vocabulary(self, tasks: str | Sequence[str] | None = None) -> Vocabulary | None:
        """Return the bins that Full-ECE adds up; None where not every task has token distributions."""
        parts = [self.docs[task].vocabulary for task in self.tasks_of(tasks)]
        return Vocabulary.together([part for part in parts if part]) if all(parts) else None

    def _has_answers_only(self, tasks: str | Sequence[str] | None) -> bool:
        """Whether the docs are answers without choices; raise ValueError where some don't go with others."""
        kinds = self.kinds(tasks)
        if "corpus" in kinds:
            raise ValueError(f"{self.model}: texts of a corpus have no answers to recalibrate or decide on")
        if "multiple_choice" in kinds and len(kinds) > 1:
            raise ValueError(
                f"{self.model}: docs with choices and answers without: take them one after the other (--task)"
            )
        return "multiple_choice" not in kinds

    def recalibration_docs(self, tasks: str | Sequence[str] | None = None, *, by: str | None = None) -> Docs:
        """Return docs as recalibration and decisions take them.

        Args:
            tasks: as in :meth:`arrays`.
            by: what their groups are: "task", or a field of the dataset's row such as "doc.ward"; one group for all
                where not given.

        Raises:
            ValueError: docs with choices and without together, or texts of a corpus.
            UserError: a doc without the field.
        """
        of_tasks, rows = self._rows(tasks)
        hashes = [docs.doc_hashes[i] for docs, which in zip(of_tasks, rows, strict=True) for i in which]
        groups = None
        if by is not None:
            groups = [name for docs, which in zip(of_tasks, rows, strict=True) for name in groups_of(docs, which, by)]
        if self._has_answers_only(tasks):
            ids = self._ids("top_label", tasks)
            return Docs.of_answers(*self.arrays("top_label", tasks), hashes, groups, cluster_ids=ids)
        probs, labels = self.arrays("choices", tasks)
        with np.errstate(divide="ignore"):  # log-likelihoods that differ by a constant from those that were logged
            log_likelihoods = np.log(probs) if isinstance(probs, np.ndarray) else [np.log(row) for row in probs]
        return Docs.of(log_likelihoods, labels, hashes, groups, cluster_ids=self._ids("choices", tasks))

    def fields(self, tasks: str | Sequence[str] | None = None, groups: str = "all") -> tuple[Fields, dict[str, str]]:
        """Return the fields of the docs of :meth:`recalibration_docs`, by name, and why others make no groups.

        Args:
            tasks: as in :meth:`arrays`.
            groups: "all", or names of fields with commas between, "task" and "doc.ward" say.

        Raises:
            UserError: a field that was named makes no groups.
        """
        of_tasks, rows = self._rows(tasks)
        return fields_of(of_tasks, rows, groups)

    def _rows(self, tasks: str | Sequence[str] | None) -> tuple[list[TaskDocs], list[list[int]]]:
        """Docs of each task that have an outcome, and a confidence where it was generated."""
        of_tasks = [self.docs[task] for task in self.tasks_of(tasks)]
        is_generated = self._has_answers_only(tasks)
        return of_tasks, [[i for i in d.order.tolist() if not is_generated or d.has_confidence(i)] for d in of_tasks]

    def decide(
        self,
        tasks: str | Sequence[str] | None = None,
        *,
        wanted: Wanted | None = None,
        by: str | None = None,
        fit_on: str | None = None,
        groups: str | None = None,
    ) -> Decision:
        """Decide from which confidence on the model may answer alone, with a guarantee, on some docs of the run.

        Args:
            tasks: as in :meth:`arrays`.
            wanted: error rate of the answers, level of the guarantee, costs; 0.05 and 0.95 where not given.
            by: a threshold for each "task", or each value of a field such as "doc.ward".
            fit_on: decide on the docs of a split, "doc.split=validation"; on 60% of the docs where not given.
            groups: fields in whose groups confidence is compared with accuracy, as in :meth:`group_errors`.

        Raises:
            ValueError: bad input; docs with choices and without together; splits that are empty or share docs.
            UserError: a doc without the field.
        """
        docs = self.recalibration_docs(tasks, by=by)
        calibration = None
        if fit_on is not None:
            field, value = split_field(fit_on)
            calibration = self.recalibration_docs(tasks, by=field).groups == value
        how: dict[str, Any] = {"by": by, "known": self.candidates(tasks), "calibration": calibration}
        decision = decide(docs, wanted or Wanted(), **how)
        return decision if groups is None else replace(decision, group_errors=self.group_errors(tasks, groups=groups))

    def candidates(self, tasks: str | Sequence[str] | None = None) -> dict[str, Candidates] | None:
        """Return other answers that generated docs could have: their options, and sampled answers; None of choices."""
        return candidates_of(*self._rows(tasks)) if self.kinds(tasks) == {"generation"} else None

    def group_errors(self, tasks: str | Sequence[str] | None = None, *, groups: str = "all") -> GroupErrors:
        """Return confidence less accuracy of every group of docs, with intervals that hold for all groups at once.

        Args:
            tasks: as in :meth:`arrays`.
            groups: fields whose values, alone and in pairs, make groups: "all", or names with commas between.

        Raises:
            ValueError: docs with choices and without together, or texts of a corpus.
            UserError: a field that was named makes no groups.
        """
        (fields, left_out), seen = self.fields(tasks, groups), self.recalibration_docs(tasks).forecasts
        how: dict[str, Any] = {"n_bins": self.n_bins, "cluster": seen.cluster, "left_out": left_out}
        return group_errors(seen.confidence, seen.correct, fields, **how)

    def tasks_of(self, tasks: str | Sequence[str] | None) -> tuple[str, ...]:
        """Return the tasks that are meant by the name of a task or group, by several, or by None, each once."""
        if tasks is None:
            return self.tasks
        names = [tasks] if isinstance(tasks, str) else tasks
        for name in names:
            if name not in self.docs and name not in self.groups:
                raise UserError(
                    f"no task or group {name!r} in the run; there are {', '.join([*self.docs, *self.groups])}"
                )
        chosen = {task for name in names for task in self.groups.get(name, (name,))}
        return tuple(task for task in self.tasks if task in chosen)

    # --- docs one by one ---------------------------------------------------------------------------------------------

    @property
    def samples(self) -> Lines[Sample]:
        """The lines as they were logged, read again from the files when they are used."""
        return Lines(self._locations(self.tasks), lambda sample: sample)

    @property
    def records(self) -> Lines[Record]:
        """The records of the docs, read again when they are used; ``list(run.records)`` keeps them."""
        return self.records_of(self.tasks)

    def records_of(self, tasks: str | Sequence[str]) -> Lines[Record]:
        """Return the :attr:`records` of some tasks, which are as in :meth:`arrays`."""
        return Lines(self._locations(tasks), lambda sample: sample.record)

    def _locations(self, tasks: str | Sequence[str]) -> list[tuple[SamplesFile, int]]:
        return [location for task in self.tasks_of(tasks) for location in self.docs[task].locations]

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each doc: task, doc_id, doc_hash, prompt_hash, kind, confidence, correct.

        Rows are in the order of :attr:`records`. Confidence is nan and correct <NA> where they are undefined.
        """
        import pandas as pd

        parts = []
        for task, docs in self.docs.items():
            correct = pd.array(np.array(docs.correct, dtype=np.int64), dtype="Int8")
            correct[np.array(docs.correct) < 0] = pd.NA
            parts.append(
                pd.DataFrame(
                    {
                        "task": task,
                        "doc_id": np.array(docs.doc_ids, dtype=np.int64),
                        "doc_hash": docs.doc_hashes,
                        "prompt_hash": docs.prompt_hashes,
                        "kind": docs.kinds,
                        "confidence": np.array(docs.confidence, dtype=np.float64),
                        "correct": correct,
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    # --- to look at --------------------------------------------------------------------------------------------------

    def plot_reliability(self, ax: "Axes | None" = None, tasks: str | Sequence[str] | None = None) -> "Axes":
        """Draw a reliability diagram (needs the extra ``report``) and return its axes.

        Args:
            ax: matplotlib axes to draw on; new ones where not given.
            tasks: as in :meth:`arrays`.
        """
        from lm_eval_calibration.plots import prepare_reliability
        from lm_eval_calibration.plots.drawing import plot_reliability

        return plot_reliability(prepare_reliability(*self.arrays("top_label", tasks), n_bins=self.n_bins), ax)

    def plot_risk_coverage(self, ax: "Axes | None" = None, tasks: str | Sequence[str] | None = None) -> "Axes":
        """Draw how often the model is wrong when it answers only what it is surest of, and return the axes.

        Arguments as in :meth:`plot_reliability`.
        """
        from lm_eval_calibration.plots import prepare_risk_coverage
        from lm_eval_calibration.plots.drawing import plot_risk_coverage

        return plot_risk_coverage(prepare_risk_coverage(*self.arrays("top_label", tasks)), ax, name=self.model)

    def _repr_html_(self) -> str:
        """A table of the core metrics with intervals, a row for all docs, each group and each task, for a notebook."""
        scopes = (
            (scope, sum(len(self.docs[task]) for task in tasks), self.metrics(tasks, names=columns("notebook")))
            for scope, tasks in with_whole(self.tasks, self.groups).items()
        )
        return notebook_table(repr(self), scopes)


def _concatenate(parts: list[Any]) -> Any:
    """Rows of several tasks together: an array where all have the same width, else a list of vectors."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts) and len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return [row for part in parts for row in part]
