"""Two runs compared: the difference of every metric, with an interval and a p-value.

Each run's interval holds its own level, near calibration too; how two are put together is told in
:mod:`~lm_eval_calibration.metrics.uncertainty.differences`.

Source: Zou & Donner 2008 (MOVER); Holm 1979.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.kinds import KINDS, KindName
from lm_eval_calibration.metrics.registry import COMPARED, Metric
from lm_eval_calibration.metrics.uncertainty.differences import difference_of
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, check_level
from lm_eval_calibration.metrics.validation import (
    FloatArray,
    Probs,
    check_n_bins,
    check_probability_vector,
    undefined,
)
from lm_eval_calibration.metrics.verdicts import Change, change_of


class Run(NamedTuple):
    """The arrays of one run, as the metrics take them; pairs that are missing are not compared.

    Attributes:
        confidence: [N] for top-label metrics, with ``correct``.
        correct: [N] 0 or 1.
        probs: [N, K] or N vectors, for classwise metrics and scores, with ``labels``.
        labels: [N] position of the gold choice.
        gap_sums: [N, n_bins] for ``full_ece``, with ``n_positions``.
        n_positions: [N] number of positions of each doc.
        tokenizer: What positions and vocabulary are cut by; ``full_ece`` is compared within one only.
    """

    confidence: ArrayLike | None = None
    correct: ArrayLike | None = None
    probs: Probs | None = None
    labels: ArrayLike | None = None
    gap_sums: ArrayLike | None = None
    n_positions: ArrayLike | None = None
    tokenizer: str | None = None


class Comparison(NamedTuple):
    """One metric of two runs.

    Attributes:
        a: The metric of run a, as it is printed.
        b: The metric of run b.
        difference: Estimate of b less a in the population. For binned errors each is less its bias, so it
            need not be b - a of the printed values: at small N these differ in their bias too.
        low: Lower end of its interval.
        high: Upper end of its interval.
        p_value: Of no difference, two-sided; below 1 - level where the interval leaves 0 out.
        verdict: "better" or "worse" of run b, where that holds at the level; else "".
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    verdict: Change


def compare(
    a: Run,
    b: Run,
    *,
    names: Sequence[str] | None = None,
    paired: bool = True,
    n_bins: int = 10,
    level: float = 0.95,
    seed: int = 0,
    cluster: ArrayLike | None = None,
    same_answers: bool = False,
) -> dict[str, Comparison]:
    """Difference b - a of every metric for which both runs have the arrays.

    Over several tasks or metrics, adjust the p-values by :func:`holm`.

    Args:
        a: One run.
        b: The other.
        names: "acc" and metrics of ``CATALOG``; all, where not given (``smece`` only where relplot is installed).
        paired: Whether doc i of a is doc i of b: runs on the same docs, aligned. Else the docs are independent.
        n_bins: Number of bins of the binned metrics; that of ``full_ece`` is in its gap sums.
        level: Level of each interval.
        seed: Seed of ``np.random.default_rng``.
        cluster: [N] name of what doc i was drawn with (its passage, program, patient), of paired runs; of unpaired
            ones a pair of such arrays (or None), in which equal names are one cluster. Docs of a cluster are not
            independent.
        same_answers: Whether the paired runs' answers are the same by construction, as before and after a
            recalibration that keeps every answer. Else docs that only one run gets right may exist although none was
            seen.

    Returns:
        A comparison by metric name, ``acc`` first, in the order of ``CATALOG`` or of ``names``; nan with
        UndefinedMetricWarning where a metric is undefined, and for ``full_ece`` of different or unnamed
        tokenizers.

    Raises:
        ValueError: Bad input; a name that is unknown or whose arrays are missing; ``full_ece`` asked for by
            name for different or unnamed tokenizers; paired runs of different length.
    """
    check_n_bins(n_bins)
    options: dict[str, Any] = {"n_bins": n_bins, "level": check_level(level), "seed": seed}
    options |= {"paired": paired, "same_answers": same_answers}
    both: Any = (cluster, cluster) if paired or cluster is None else cluster
    options["clusters"] = tuple(both)
    comparisons = {}
    for name in comparable(a, b) if names is None else names:
        metric = _metric(name, a, b)
        refusal = _refusal(name, a, b) if metric.kind == "full_vocabulary" else None
        if refusal and names is not None:
            raise ValueError(refusal)
        comparisons[name] = _compared(metric, a, b, options, refusal)
    return comparisons


def _compared(metric: Metric, a: Run, b: Run, options: dict[str, Any], refusal: str | None) -> Comparison:
    one, other = (_arrays(run, metric.kind) for run in (a, b))
    if options["paired"] and len(one[1]) != len(other[1]):
        docs = f"a has {len(one[1])} and b {len(other[1])}"
        raise ValueError(f"{metric.name}: paired runs have the same docs, but {docs}")
    bins = {"n_bins": options["n_bins"]} if metric.takes_n_bins else {}
    values = metric.value(*one, **bins), metric.value(*other, **bins)
    if refusal:
        nan = undefined(refusal)
        return Comparison(values[0], values[1], nan, nan, nan, nan, "")
    own = {"level": options["level"], "seed": options["seed"]}
    estimates = [
        metric.estimate(*arrays, **bins, **own, cluster=cluster)
        for arrays, cluster in zip((one, other), options["clusters"], strict=True)
    ]
    how = {name: options[name] for name in ("paired", "level", "same_answers")}
    if not options["paired"] and all(cluster is not None for cluster in options["clusters"]):
        estimates, how["paired_clusters"] = _aligned_by_cluster(estimates, options["clusters"]), True
    found = difference_of(*estimates, **how)
    intervals = [(estimate.low, estimate.high) for estimate in estimates]
    verdict = change_of(metric.higher_is_better, (found[1], found[2]), *intervals)
    return Comparison(values[0], values[1], *found, verdict)


def _aligned_by_cluster(estimates: list[Estimate], clusters: Sequence[Any]) -> list[Estimate]:
    """Two runs' estimates with one influence for each cluster of either, 0 where a run has no doc of it."""
    if any(np.isnan(estimate.low) for estimate in estimates):
        return estimates
    names = [np.asarray(cluster) for cluster in clusters]
    every = np.unique(np.concatenate(names))
    aligned = []
    for estimate, own in zip(estimates, names, strict=True):
        labels = own[np.sort(np.unique(own, return_index=True)[1])]
        influence = np.zeros(len(every))
        influence[np.searchsorted(every, labels)] = estimate.influence
        aligned.append(estimate._replace(influence=influence))
    return aligned


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values adjusted so that rejecting those below alpha makes any false rejection no likelier than alpha.

    The i-th smallest of m is multiplied by m - i + 1; none is below a smaller one, none above 1.

    Args:
        p_values: [m] p-values; nan (undefined) stays nan and doesn't count.

    Returns:
        [m] adjusted p-values in the same order.

    Raises:
        ValueError: A p-value outside [0, 1].

    Source: Holm 1979.
    """
    array = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(array.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(array))
    values = check_probability_vector("p_values", array[tested])
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values), 0, -1) * values[order]
    adjusted[tested[order]] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


RUN_FIELDS: dict[KindName, tuple[str, str]] = {
    name: kind.arrays for name, kind in KINDS.items() if set(kind.arrays) <= set(Run._fields)
}
"""Fields of a run that hold the two arrays of each kind of metric."""


def comparable(a: Run, b: Run) -> list[str]:
    """Names of the metrics whose arrays both runs have, and whose package is installed."""
    return [
        name
        for name, metric in COMPARED.items()
        if _has(a, metric.kind) and _has(b, metric.kind)
        if metric.requires is None or find_spec(metric.requires) is not None
    ]


def _arrays(run: Run, kind: KindName) -> tuple[Any, Any]:
    """The two arrays of a kind; None where missing."""
    first, second = RUN_FIELDS[kind]
    return getattr(run, first), getattr(run, second)


def _has(run: Run, kind: KindName) -> bool:
    return all(array is not None for array in _arrays(run, kind))


def _metric(name: str, a: Run, b: Run) -> Metric:
    """The metric of a name, of which both runs must have the arrays."""
    if name not in COMPARED:
        raise ValueError(f"{name!r} is no metric; there are {', '.join(COMPARED)}")
    metric = COMPARED[name]
    if not (_has(a, metric.kind) and _has(b, metric.kind)):
        raise ValueError(f"{name} needs the arrays {' and '.join(RUN_FIELDS[metric.kind])} of both runs")
    return metric


def _refusal(name: str, a: Run, b: Run) -> str | None:
    """Why a metric of the vocabulary is not compared between these runs."""
    if a.tokenizer is None or b.tokenizer is None:
        return f"{name} is compared within one tokenizer only: name the tokenizer of both runs"
    if a.tokenizer != b.tokenizer:
        return f"{name} is compared within one tokenizer only, not between {a.tokenizer!r} and {b.tokenizer!r}"
    return None
