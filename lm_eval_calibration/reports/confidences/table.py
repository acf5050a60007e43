"""Kinds of confidence by metrics, and how much better one is than another on the same docs."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import Comparison
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.metrics.verdicts import ALPHA
from lm_eval_calibration.recalibration import cross_fit
from lm_eval_calibration.records import Record, ordered
from lm_eval_calibration.records.clusters import IntIds, as_numbers, clusters_of
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.columns import ACC, columns, metric_of
from lm_eval_calibration.results.measured import accuracy, measure
from lm_eval_calibration.tasks.confidences.registry import sources

PLAIN, SCALED = "probability of the answer", "after temperature scaling"
LOGGED = "confidence as logged"
"""What somebody else's log or table has: only its writer knows whether it is a probability or was stated."""

MIN_DOCS = 20
"""With fewer docs no temperature is fitted."""


class Answers(NamedTuple):
    """One run's answers to a task with one kind of confidence.

    ``docs`` [N] identify the docs in every run; ``confidence`` [N] is that the answer is right, ``correct`` [N] whether
    it is; ``clusters`` [N] are ids of what docs were drawn with, 0 for nothing known; ``n_without`` docs were left out
    because their confidence is undefined.
    """

    run: str
    kind: str
    docs: tuple[str, ...]
    confidence: FloatArray
    correct: IntArray
    clusters: IntIds
    n_without: int

    @property
    def name(self) -> str:
        """Run and kind."""
        return f"{self.run}: {self.kind}"


class Row(NamedTuple):
    """A line of the table: answers with one kind of confidence, and their metrics by name."""

    answers: Answers
    measured: dict[str, Measured]


class Change(NamedTuple):
    """Two kinds of confidence, by name, compared on the docs that both have: by metric, b less a.

    ``p_adjusted``: p-values after Holm's procedure over all changes of all tables; verdicts hold by these, too.
    """

    a: str
    b: str
    n_docs: int
    found: dict[str, Comparison]
    p_adjusted: dict[str, float]


class Table(NamedTuple):
    """A task: kinds of confidence run by run, and what changes.

    Every other kind is compared with the first run's scaled probability, and with its own kind of the first run.
    """

    task: str
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]


def make_tables(runs: Mapping[str, Run], tasks: Sequence[str], n_bins: int) -> list[Table]:
    """Return the tables of some tasks that the runs have in common.

    Raises:
        UserError: no doc of any task has a confidence and a sound gold label.
    """
    answers: dict[str, list[Answers]] = {task: [] for task in tasks}
    for label, run in runs.items():
        records: dict[str, list[Record]] = {task: [] for task in tasks}
        for record in run.records:
            if record.task in records and record.correct is not None:
                records[record.task].append(record)
        for task, of_task in records.items():
            answers[task] += kinds_of(label, run, task, ordered(of_task))
    if not any(answers.values()):
        raise UserError(f"{tasks[0]}: no doc has an answer with a confidence")
    changes = {task: [compare(*pair, n_bins) for pair in _pairs(found)] for task, found in answers.items() if found}
    adjusted = iter(_adjusted([change for of_task in changes.values() for change in of_task]))
    return [
        Table(
            task,
            tuple(Row(one, _measured(one, n_bins)) for one in found),
            tuple(next(adjusted) for _ in changes[task]),
        )
        for task, found in answers.items()
        if found
    ]


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """The same with p-values after Holm's procedure over all of them, and the words that these leave."""
    keys = [(i, name) for i, change in enumerate(changes) for name in change.found]
    p_values = metrics.holm([changes[i].found[name].p_value for i, name in keys]).tolist() if keys else []
    p_of = dict(zip(keys, p_values, strict=True))
    return [
        change._replace(
            found={n: c if p_of[i, n] <= ALPHA else c._replace(verdict="") for n, c in change.found.items()},
            p_adjusted={n: p_of[i, n] for n in change.found},
        )
        for i, change in enumerate(changes)
    ]


def kinds_of(label: str, run: Run, task: str, records: Sequence[Record]) -> list[Answers]:
    """Return a run's answers to a task (its records, by doc id), once for each kind of confidence that was logged.

    Temperature scaling is cross-fitted: each doc's temperature is fitted on other docs.
    """
    names, clusters = _doc_names(records), as_numbers([record.cluster for record in records])
    plain = LOGGED if any(record.kind == "answer" for record in records) else PLAIN
    found = [_answers(label, plain, names, clusters, [(record.confidence, record.correct) for record in records])]
    if len(records) >= MIN_DOCS and records[0].kind == "multiple_choice":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about docs that don't determine the temperature
            scaled = cross_fit("temperature", run.recalibration_docs(task)).forecasts  # which have the same order
        pairs = list(zip(scaled.confidence.tolist(), scaled.correct.tolist(), strict=True))
        found.append(_answers(label, SCALED, names, clusters, pairs))
    for source in sources():
        if source.suffix and source.report_name and any(map(source.is_in, records)):
            pairs = [(doc.confidence, doc.correct) for doc in source.view(records)]
            found.append(_answers(label, source.report_name, names, clusters, pairs))
    return [one for one in found if len(one.docs)]


def _doc_names(records: Sequence[Record]) -> list[str]:
    """Identifies each doc: its hash and, where several have one hash, a number."""
    seen: Counter[str] = Counter()
    names = []
    for record in records:
        seen[record.doc_hash] += 1
        names.append(f"{record.doc_hash} {seen[record.doc_hash]}")
    return names


def _answers(
    label: str, kind: str, names: Sequence[str], clusters: IntIds, pairs: Sequence[tuple[float | None, int | None]]
) -> Answers:
    known = [i for i, pair in enumerate(pairs) if None not in pair]
    docs = tuple(names[i] for i in known)
    confidence, correct = np.array([pairs[i] for i in known], dtype=np.float64).reshape(-1, 2).T
    return Answers(label, kind, docs, confidence, correct.astype(np.int64), clusters[known], len(names) - len(known))


def _measured(answers: Answers, n_bins: int) -> dict[str, Measured]:
    arrays, cluster = (answers.confidence, answers.correct), clusters_of(answers.clusters)
    return {
        name: accuracy(answers.correct, cluster)
        if name == ACC
        else measure(metric_of(name), arrays, n_bins, cluster=cluster, with_stderr=False)
        for name in columns("confidences")
    }


def _pairs(answers: Sequence[Answers]) -> list[tuple[Answers, Answers]]:
    """Each kind against the first run's temperature-scaled probability, and against the same kind of the first run."""
    base = next((one for one in answers if one.kind == SCALED), answers[0])
    pairs = [(base, one) for one in answers if one is not base and one.kind not in (PLAIN, SCALED, LOGGED)]
    for one in answers:
        first = next(other for other in answers if other.kind == one.kind)
        if first.run != one.run and one.kind != SCALED:
            pairs.append((first, one))
    return pairs


def compare(a: Answers, b: Answers, n_bins: int) -> Change:
    """Compare two kinds of confidence on the docs that both have, paired."""
    index = {name: i for i, name in enumerate(b.docs)}
    both = [(i, index[name]) for i, name in enumerate(a.docs) if name in index]
    if len(both) < 2:
        return Change(a.name, b.name, len(both), {}, {})
    one, other = np.array(both).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nan says that a metric is undefined
        found = metrics.compare(
            metrics.Run(a.confidence[one], a.correct[one]),
            metrics.Run(b.confidence[other], b.correct[other]),
            names=columns("confidences: changes"),
            n_bins=n_bins,
            cluster=clusters_of(a.clusters[one]),
            same_answers=a.run == b.run,
        )
    return Change(a.name, b.name, len(both), found, {})
