"""Ways of stating confidence by metrics, and how much better one is than another on the same docs."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import CATALOG, Comparison
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.recalibration import cross_fit
from lm_eval_calibration.records import Record, ordered
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.measured import accuracy, measure
from lm_eval_calibration.tasks.confidences.registry import sources

METRICS = ("ece", "auroc", "brier_top_label", "overconfidence")
"""Beside accuracy."""

COMPARED = ("acc", "ece", "auroc", "brier_top_label")

PLAIN, SCALED = "probability of the answer", "after temperature scaling"

FEWEST = 20
"""Docs below which no temperature is fitted."""


class Stated(NamedTuple):
    """One run's answers to a task with one kind of confidence.

    Attributes:
        run: label of the run.
        kind: of the confidence.
        docs: [N] what tells the docs apart, the same in every run.
        confidence: [N] that the answer is right.
        correct: [N] whether it is.
        n_without: docs left out because their confidence is undefined.
    """

    run: str
    kind: str
    docs: tuple[str, ...]
    confidence: FloatArray
    correct: IntArray
    n_without: int

    @property
    def name(self) -> str:
        """Run and kind."""
        return f"{self.run}: {self.kind}"


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        stated: what it is of.
        measured: accuracy and metrics, by name.
    """

    stated: Stated
    measured: dict[str, Measured]


class Change(NamedTuple):
    """Two ways compared on the docs that both have.

    Attributes:
        a: name of one.
        b: name of the other.
        n_docs: docs compared.
        found: by metric, b less a.
    """

    a: str
    b: str
    n_docs: int
    found: dict[str, Comparison]


class Table(NamedTuple):
    """A task.

    Attributes:
        task: its name.
        rows: ways of stating confidence, run by run.
        changes: every other way against the first run's plain probability and, of the same kind, against the first run.
    """

    task: str
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]


def make_tables(runs: Mapping[str, Run], tasks: Sequence[str], n_bins: int) -> list[Table]:
    """Return the tables of some tasks.

    Args:
        runs: by label.
        tasks: that they have in common.
        n_bins: bins of ECE.

    Raises:
        UserError: no doc of a task has a confidence and a sound gold label.
    """
    stated: dict[str, list[Stated]] = {task: [] for task in tasks}
    for label, run in runs.items():
        records: dict[str, list[Record]] = {task: [] for task in tasks}
        for record in run.records:
            if record.task in records and record.correct is not None:
                records[record.task].append(record)
        for task, of_task in records.items():
            stated[task] += kinds_of(label, run, task, ordered(of_task))
    if empty := [task for task, found in stated.items() if not found]:
        raise UserError(f"{empty[0]}: no doc has an answer with a confidence")
    return [
        Table(
            task,
            tuple(Row(one, _measured(one, n_bins)) for one in found),
            tuple(compare(*pair, n_bins) for pair in _pairs(found)),
        )
        for task, found in stated.items()
    ]


def kinds_of(label: str, run: Run, task: str, records: Sequence[Record]) -> list[Stated]:
    """Return what a run states of a task: one for each kind of confidence that was logged.

    Temperature scaling is cross-fitted: each doc's temperature comes of other docs.

    Args:
        label: of the run.
        run: where the docs of recalibration are.
        task: name of the task.
        records: of its docs with a sound gold label, by doc id.
    """
    names = _names(records)
    found = [_stated(label, PLAIN, names, [(record.confidence, record.correct) for record in records])]
    if len(records) >= FEWEST and records[0].kind == "multiple_choice":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that docs say nothing of the temperature
            scaled = cross_fit("temperature", run.recalibration_docs(task)).forecasts  # which have the same order
        pairs = list(zip(scaled.confidence.tolist(), scaled.correct.tolist(), strict=True))
        found.append(_stated(label, SCALED, names, pairs))
    for source in sources():
        if source.suffix and source.report_name and records and all(map(source.is_in, records)):
            pairs = [(doc.confidence, doc.correct) for doc in source.view(records)]
            found.append(_stated(label, source.report_name, names, pairs))
    return [one for one in found if len(one.docs)]


def _names(records: Sequence[Record]) -> list[str]:
    """What tells each doc apart: its hash and, where several are equal, which of them it is."""
    seen: Counter[str] = Counter()
    names = []
    for record in records:
        seen[record.doc_hash] += 1
        names.append(f"{record.doc_hash} {seen[record.doc_hash]}")
    return names


def _stated(label: str, kind: str, names: Sequence[str], pairs: Sequence[tuple[float | None, int | None]]) -> Stated:
    rows = [
        (name, confidence, correct)
        for name, (confidence, correct) in zip(names, pairs, strict=True)
        if confidence is not None and correct is not None
    ]
    docs, confidence, correct = zip(*rows, strict=True) if rows else ((), (), ())
    return Stated(label, kind, docs, np.array(confidence, float), np.array(correct, np.int64), len(names) - len(rows))


def _measured(stated: Stated, n_bins: int) -> dict[str, Measured]:
    found = {"acc": accuracy(int(stated.correct.sum()), len(stated.correct))}
    arrays = stated.confidence, stated.correct
    return found | {name: measure(CATALOG[name], arrays, n_bins, with_stderr=False) for name in METRICS}


def _pairs(stated: Sequence[Stated]) -> list[tuple[Stated, Stated]]:
    """Each way against the first run's temperature-scaled probability, and against the same way of the first run."""
    base = next((one for one in stated if one.kind == SCALED), stated[0])
    pairs = [(base, one) for one in stated if one is not base and one.kind not in (PLAIN, SCALED)]
    for one in stated:
        first = next(other for other in stated if other.kind == one.kind)
        if first.run != one.run and one.kind != SCALED:
            pairs.append((first, one))
    return pairs


def compare(a: Stated, b: Stated, n_bins: int) -> Change:
    """Compare two ways on the docs that both have, one by one."""
    place = {name: i for i, name in enumerate(b.docs)}
    both = [(i, place[name]) for i, name in enumerate(a.docs) if name in place]
    if len(both) < 2:
        return Change(a.name, b.name, len(both), {})
    one, other = np.array(both).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nan says that a metric is undefined
        found = metrics.compare(
            metrics.Run(a.confidence[one], a.correct[one]),
            metrics.Run(b.confidence[other], b.correct[other]),
            names=COMPARED,
            n_bins=n_bins,
        )
    return Change(a.name, b.name, len(both), found)


def is_better(name: str, found: Comparison) -> str:
    """Say whether b is better or worse where the interval leaves 0 out, else nothing."""
    if math.isnan(found.low) or not (found.low > 0 or found.high < 0):
        return ""
    higher_is_better = name in ("acc", "auroc")
    return "better" if higher_is_better == (found.difference > 0) else "worse"
