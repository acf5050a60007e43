"""The difference of two estimates, with an interval and a p-value.

The interval of the difference puts two intervals together by MOVER: with estimates v_a, v_b, ends l, u and the
correlation r of the estimates,
low = (v_b - v_a) - sqrt((v_b - l_b)^2 + (u_a - v_a)^2 - 2 r (v_b - l_b) (u_a - v_a)), and high likewise. For
means that is the t interval of the paired differences. r is that of the docs' influences where both runs
answered the same docs, 0 where they didn't. v of a binned error is not the plug-in error but that of which the
plug-in one would be the median, else the run with less error would look too bad.

Source: Zou & Donner 2008 (MOVER).
"""

import numpy as np
from scipy.special import ndtr, ndtri

from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.validation import FloatArray


def difference_of(a: Estimate, b: Estimate, *, paired: bool, level: float) -> tuple[float, float, float, float]:
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
