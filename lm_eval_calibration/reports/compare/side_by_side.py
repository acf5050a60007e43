"""What a page shows of a few runs beside their table: curves on the same axes, and docs that changed sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm_eval_calibration.plots import Reliability, prepare_reliability
from lm_eval_calibration.plots.smooth import Smooth, prepare_difference, prepare_smooth
from lm_eval_calibration.records import clusters_of
from lm_eval_calibration.reports.changed_docs import ChangedDocs, changed_docs, paired_docs
from lm_eval_calibration.reports.compare.sentences import results_sentences
from lm_eval_calibration.reports.compare.table import Table
from lm_eval_calibration.reports.runs import answered_tasks
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.differences import POOLED

MOST_CURVES = 7
"""Runs whose curves one diagram can show: one a colour."""


@dataclass(frozen=True)
class Versus:
    """A run (b) against the first one (a): their smooth curves' difference, b less a, and docs that changed sides.

    ``paired``: whether the difference is of the same docs.
    """

    a: str
    b: str
    difference: Smooth
    changed: ChangedDocs
    paired: bool


@dataclass(frozen=True)
class SideBySide:
    """Runs on the same axes, on the docs of the table's first scope: smooth reliability curve and bins of each run.

    ``versus`` has every other run against the first; ``sentences`` are results for a paper.
    """

    scope: str
    curves: dict[str, Smooth]
    bins: dict[str, Reliability]
    versus: tuple[Versus, ...]
    sentences: tuple[str, ...]


def side_by_side(runs: dict[str, Run], table: Table, *, redact: bool = False) -> SideBySide:
    """Return what is shown of the table's runs; no curves of more than seven, which nobody could tell apart.

    Args:
        runs: those of the table.
        table: of them.
        redact: without texts of docs.
    """
    common, scope = answered_tasks(runs), table.scopes[0].task
    tasks = common if scope == POOLED else [task for task in runs[table.labels[0]].tasks_of(scope) if task in common]
    sentences = tuple(results_sentences(table))
    with_answers = {label: run for label, run in runs.items() if _has_confidence(run, tasks)}
    if len(runs) > MOST_CURVES or len(with_answers) < len(runs):
        return SideBySide(scope, {}, {}, (), sentences)
    arrays = {label: run.arrays("top_label", tasks) for label, run in runs.items()}
    first, *others = runs
    return SideBySide(
        scope,
        {
            label: prepare_smooth(*arrays[label], cluster=run.clusters("top_label", tasks))
            for label, run in runs.items()
        },
        {label: prepare_reliability(*found, n_bins=table.n_bins) for label, found in arrays.items()},
        tuple(_versus((first, runs[first]), (label, runs[label]), tasks, redact=redact) for label in others),
        sentences,
    )


def _has_confidence(run: Run, tasks: Sequence[str]) -> bool:
    try:
        return len(run.arrays("top_label", tasks)[0]) > 0
    except ValueError:
        return False


def _versus(a: tuple[str, Run], b: tuple[str, Run], tasks: Sequence[str], *, redact: bool) -> Versus:
    (label, one), (name, other) = a, b
    rows = [row for task in tasks for row in paired_docs(one, other, task)]
    rows = [row for row in rows if not (math.isnan(row.confidence_a) or math.isnan(row.confidence_b))]
    arrays = one.arrays("top_label", tasks), other.arrays("top_label", tasks)
    paired, cluster = 2 * len(rows) >= min(len(part[0]) for part in arrays), None
    if paired:
        arrays = (
            ([row.confidence_a for row in rows], [row.correct_a for row in rows]),
            ([row.confidence_b for row in rows], [row.correct_b for row in rows]),
        )
        cluster = clusters_of(np.array([one.docs[row.task].clusters[row.a] for row in rows], dtype=np.uint64))
    return Versus(
        label,
        name,
        prepare_difference(*arrays, paired=paired, cluster=cluster),
        changed_docs(one, other, tasks, redact=redact),
        paired,
    )
