"""Two runs compared: the difference of every metric, with an interval and a p-value.

Each run's interval holds its own level, near calibration too. The interval of the difference puts the two
together by MOVER: with estimates v_a, v_b, ends l, u and the correlation r of the estimates,
low = (v_b - v_a) - sqrt((v_b - l_b)^2 + (u_a - v_a)^2 - 2 r (v_b - l_b) (u_a - v_a)), and high likewise. For
means that is the t interval of the paired differences. r is that of the docs' influences where both runs
answered the same docs, 0 where they didn't. v of a binned error is not the plug-in error but that of which the
plug-in one would be the median, else the run with less error would look too bad.

Source: Zou & Donner 2008 (MOVER); Holm 1979.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from lm_eval_calibration.metrics import estimates
from lm_eval_calibration.metrics.catalog import ACC, CATALOG, Kind
from lm_eval_calibration.metrics.full_vocabulary import check_gap_sums
from lm_eval_calibration.metrics.intervals import check_level
from lm_eval_calibration.metrics.inversion import Estimate
from lm_eval_calibration.metrics.validation import (
    FloatArray,
    Probs,
    check_choices,
    check_n_bins,
    check_probability_vector,
    check_top_label,
    undefined,
)


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
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def compare(
    a: Run,
    b: Run,
    *,
    names: Sequence[str] | None = None,
    paired: bool = True,
    n_bins: int = 10,
    level: float = 0.95,
    seed: int = 0,
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

    Returns:
        A comparison by metric name, ``acc`` first, in the order of ``CATALOG`` or of ``names``; nan with
        UndefinedMetricWarning where a metric is undefined, and for ``full_ece`` of different or unnamed
        tokenizers.

    Raises:
        ValueError: Bad input; a name that is unknown or whose arrays are missing; ``full_ece`` asked for by
            name for different or unnamed tokenizers; paired runs of different length.
    """
    check_n_bins(n_bins)
    check_level(level)
    comparisons = {}
    for name in comparable(a, b) if names is None else names:
        _check_asked_for(name, a, b)
        refusal = _refusal(a, b) if name == "full_ece" else None
        if refusal and names is not None:
            raise ValueError(refusal)
        metric = METRICS[name]
        one, other = (_arrays(run, metric.kind) for run in (a, b))
        if paired and len(one[1]) != len(other[1]):
            raise ValueError(f"{name}: paired runs have the same docs, but a has {len(one[1])} and b {len(other[1])}")
        options = {"n_bins": n_bins} if metric.takes_n_bins else {}
        values = metric.value(*one, **options), metric.value(*other, **options)
        if refusal:
            comparisons[name] = Comparison(*values, *[undefined(refusal)] * 4)
            continue
        estimated = (_estimate(name, *pair, n_bins=n_bins, level=level, seed=seed) for pair in (one, other))
        comparisons[name] = Comparison(*values, *_difference(*estimated, paired=paired, level=level))
    return comparisons


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


RUN_FIELDS: dict[Kind, tuple[str, str]] = {
    "top_label": ("confidence", "correct"),
    "choices": ("probs", "labels"),
    "full_vocabulary": ("gap_sums", "n_positions"),
}
"""Fields of a run that hold the two arrays of each kind of metric."""

METRICS = {"acc": ACC, **CATALOG}
"""What is compared: accuracy, and every metric."""


def _arrays(run: Run, kind: Kind) -> tuple[Any, Any]:
    """The two arrays of a kind; None where missing."""
    first, second = RUN_FIELDS[kind]
    return getattr(run, first), getattr(run, second)


def _has(run: Run, kind: Kind) -> bool:
    return all(array is not None for array in _arrays(run, kind))


def comparable(a: Run, b: Run) -> list[str]:
    """Names of the metrics whose arrays both runs have, and whose package is installed."""
    names = [name for name, metric in METRICS.items() if _has(a, metric.kind) and _has(b, metric.kind)]
    return [name for name in names if name != "smece" or find_spec("relplot") is not None]


def _check_asked_for(name: str, a: Run, b: Run) -> None:
    if name not in METRICS:
        raise ValueError(f"{name!r} is no metric; there are {', '.join(METRICS)}")
    kind = METRICS[name].kind
    if not (_has(a, kind) and _has(b, kind)):
        raise ValueError(f"{name} needs the arrays {' and '.join(RUN_FIELDS[kind])} of both runs")


def _refusal(a: Run, b: Run) -> str | None:
    if a.tokenizer is None or b.tokenizer is None:
        return "full_ece is compared within one tokenizer only: name the tokenizer of both runs"
    if a.tokenizer != b.tokenizer:
        return f"full_ece is compared within one tokenizer only, not between {a.tokenizer!r} and {b.tokenizer!r}"
    return None


def _estimate(name: str, first: ArrayLike, second: ArrayLike, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The estimate behind a metric, from unchecked arrays."""
    function = getattr(estimates, "ece_estimate" if name == "ece_debiased" else f"{name}_estimate")
    options = {"n_bins": n_bins, "level": level, "seed": seed, "threshold": 0.9}
    taken = {key: value for key, value in options.items() if key in signature(function).parameters}
    kind = METRICS[name].kind
    if kind == "choices":
        estimate: Estimate = function(check_choices(first, second), **taken)
    else:
        check = check_top_label if kind == "top_label" else check_gap_sums
        estimate = function(*check(first, second), **taken)
    return estimate


def _difference(a: Estimate, b: Estimate, *, paired: bool, level: float) -> tuple[float, float, float, float]:
    """Difference b - a, the ends of its interval, and its p-value."""
    if np.isnan(a.value) or np.isnan(b.value):
        nan = float("nan")
        return nan, nan, nan, nan
    correlation = _correlation(a.influence, b.influence) if paired else 0.0
    if 0 in (a.low, b.low):  # what each doc does to an error near 0 is mostly noise: no gain is taken from it
        correlation = min(correlation, 0.0)
    difference = b.value - a.value
    below = _combined(a.high - a.value, b, correlation)
    above = _combined(b.high - b.value, a, correlation)
    towards_0 = below if difference > 0 else above
    if towards_0 == 0:
        p_value = float(difference == 0)
    else:
        p_value = float(2 * ndtr(ndtri((1 - level) / 2) * abs(difference) / towards_0))
    return difference, difference - below, difference + above, p_value


def _combined(upward: float, other: Estimate, correlation: float) -> float:
    """How far the difference may be off: one estimate too low by ``upward``, the other too high.

    An interval that ends at 0 because nothing is below says little about how far its estimate may be off. Then
    that is taken to be as far as upwards, or the two errors add up, whichever is less.
    """
    downward = other.value - other.low
    if other.low != 0:
        return _root_sum(upward, downward, correlation)
    return min(upward + downward, _root_sum(upward, max(downward, other.high - other.value), correlation))


def _root_sum(one: float, other: float, correlation: float) -> float:
    return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other)))


def _correlation(a: FloatArray, b: FloatArray) -> float:
    spread = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.clip(np.sum(a * b) / spread, -1, 1)) if spread > 0 else 0.0
