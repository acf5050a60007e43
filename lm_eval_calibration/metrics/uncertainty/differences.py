"""The difference of two estimates, with an interval and a p-value.

The interval of the difference puts two intervals together by MOVER: with estimates v_a, v_b, ends l, u and the
correlation r of the estimates,
low = (v_b - v_a) - sqrt((v_b - l_b)^2 + (u_a - v_a)^2 - 2 r (v_b - l_b) (u_a - v_a)), and high likewise. Means of the
same docs are compared doc by doc instead. r is that of the docs' influences where both runs
answered the same docs, 0 where they didn't. v of a binned error is not the plug-in error but that of which the
plug-in one would be the median, else the run with less error would look too bad.

Source: Zou & Donner 2008 (MOVER).
"""

import numpy as np
from scipy.special import ndtr, ndtri

from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.means import difference_interval
from lm_eval_calibration.metrics.validation import FloatArray


def difference_of(
    a: Estimate,
    b: Estimate,
    *,
    paired: bool,
    level: float,
    same_answers: bool = False,
    paired_clusters: bool = False,
) -> tuple[float, float, float, float]:
    """Difference b - a, the ends of its interval, and its p-value.

    paired: whether influences are of the same docs. paired_clusters: whether they are of the same clusters, though of
    different docs.
    """
    if np.isnan([a.low, b.low]).any():
        nan = float("nan")
        return nan, nan, nan, nan
    difference = b.value - a.value
    if paired and a.values is not None and b.values is not None:
        difference = float(np.mean(b.values.value - a.values.value))
        low, high = difference_interval(a.values, b.values, level, same_answers=same_answers)
        below, above = difference - low, high - difference
    else:
        apart = _one_less_correlation(a.influence, b.influence) if paired or paired_clusters else 1.0
        if 0 in (a.low, b.low):  # what each doc does to an error near 0 is mostly noise: no gain is taken from it
            apart = max(apart, 1.0)
        below, above = _combined(a.high - a.value, b, apart), _combined(b.high - b.value, a, apart)
    low, high = difference - below, difference + above
    return difference, low, high, two_sided_p_value(difference, low, high, level)


def two_sided_p_value(difference: float, low: float, high: float, level: float) -> float:
    """p-value of no difference: normal, with the standard error that the interval's end towards 0 stands for."""
    towards_0 = difference - low if difference > 0 else high - difference
    if towards_0 == 0:
        return float(difference == 0)
    return float(2 * ndtr(ndtri((1 - level) / 2) * abs(difference) / towards_0))


def _combined(upward: float, other: Estimate, apart: float) -> float:
    """How far the difference may be off: one estimate too low by ``upward``, the other too high.

    An interval that ends at 0 because nothing is below says little about how far its estimate may be off. Then
    that is taken to be as far as upwards, or the two errors add up, whichever is less.
    """
    downward = other.value - other.low
    if other.low != 0:
        return _root_sum(upward, downward, apart)
    return min(upward + downward, _root_sum(upward, max(downward, other.high - other.value), apart))


def _root_sum(one: float, other: float, apart: float) -> float:
    """sqrt(one^2 + other^2 - 2 r one other), without the cancellation where r is near 1; ``apart`` is 1 - r."""
    return float(np.sqrt((one - other) ** 2 + 2 * apart * one * other))


def _one_less_correlation(a: FloatArray, b: FloatArray) -> float:
    """1 - r of two influences, from their difference: 1 - r is lost in rounding where r is near 1."""
    sizes = float(np.sqrt(np.sum(a**2))), float(np.sqrt(np.sum(b**2)))
    if 0 in sizes:
        return 1.0
    return float(np.clip(np.sum((a / sizes[0] - b / sizes[1]) ** 2) / 2, 0, 2))
