"""What comes of a comparison: one difference a metric, one comparison a task, and all of it."""

from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_calibration import metrics
from lm_eval_calibration.results.certificates import CertificateDifference

METRICS = metrics.COMPARED
"""Metrics that are compared, accuracy first."""

POOLED = "all"
"""Name of what is computed on the docs of all tasks."""


class Difference(NamedTuple):
    """One metric of two runs on the same (or, unpaired, on each one's) docs.

    Attributes:
        name: of the metric.
        a: its value in one run, as it is printed.
        b: its value in the other.
        difference: estimate of b less a in the population; binned errors are less their bias, so it need not be b - a.
        low: lower end of its interval.
        high: upper end.
        p_value: of no difference, two-sided.
        p_adjusted: the p-value adjusted over the tasks (Holm); of the pooled docs the p-value itself.
        n_tests: number of tasks that this was over.
        reason: why numbers are nan; "" where none is.
        verdict: "better" or "worse" of b, where interval and adjusted p-value say so; else "".
        total: interval of b + a, of a metric whose sign matters: where b is above 0, |b| - |a| is the smaller of b - a
            and b + a. None of other metrics.
        is_same: whether the runs have the same in every doc, as far as the metric is about it; then no doc of these is
            evidence of a change.
    """

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    n_tests: int
    reason: str
    verdict: str = ""
    total: tuple[float, float] | None = None
    is_same: bool = False


@dataclass(frozen=True)
class TaskComparison:
    """Two runs of a task, or of all tasks' docs.

    Attributes:
        task: its name; "all" for the docs of all tasks.
        paired: whether the same docs were compared one by one; else the runs' docs were taken as independent.
        n_a: number of docs compared, of one run.
        n_b: of the other; the same where paired.
        left_out_a: docs of a that were not compared: not in b, or without a sound gold label.
        left_out_b: the same of b.
        other_prompts: pairs with different prompts.
        other_golds: pairs with different gold choices.
        differences: by metric; those that don't apply to the records' kind are not there.
        n_clusters: of how many clusters the docs of a are; None where each was drawn by itself, as far as is known.
    """

    task: str
    paired: bool
    n_a: int
    n_b: int
    left_out_a: int
    left_out_b: int
    other_prompts: int
    other_golds: int
    differences: dict[str, Difference]
    n_clusters: int | None = None


@dataclass(frozen=True)
class RunComparison:
    """Two runs compared.

    Attributes:
        tasks: those that both have, by name.
        pooled: the docs of all of them; None where their records are of different kinds.
        only_a: tasks that b lacks.
        only_b: tasks that a lacks.
        left_out: tasks of both, in one of which no doc has a sound gold label and a confidence.
        certificate_differences: how the certificates of the docs compared differ.
        n_bins: bins of the binned metrics.
        level: of the intervals.
    """

    tasks: tuple[TaskComparison, ...]
    pooled: TaskComparison | None
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    certificate_differences: tuple[CertificateDifference, ...]
    n_bins: int
    level: float
    left_out: tuple[str, ...] = ()
