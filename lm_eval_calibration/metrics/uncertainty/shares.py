"""Intervals of shares of docs, from the binomial distribution: few docs, and shares near 0 and 1.

Confidence intervals are mid-P everywhere; what is promised (an error rate of at most so much) is exact.
"""

from functools import lru_cache

import numpy as np
from scipy.special import betainc, betaincinv

from lm_eval_calibration.metrics.validation import FloatArray

STEPS = 60
"""Halvings of the search for an end: past the last bit of a share."""

Interval = tuple[float, float]


@lru_cache(maxsize=1024)  # a report asks for most of its shares several times
def share_interval(count: float, total: float, level: float) -> Interval:
    """Mid-P interval of a share, ``count`` of ``total``; both need not be whole numbers.

    A share belongs to it unless P(more) + P(as many) / 2, or the same of fewer, is below (1 - level) / 2. Between
    Wilson's, which misses rare events (0 of n docs says little of a rate of 0.2 / n), and Clopper and Pearson's, which
    is a tenth too wide for few docs. Lancaster 1961; Agresti & Gottard 2007.
    """
    low, high = share_intervals(np.array([float(count)]), np.array([float(total)]), level)
    return float(low[0]), float(high[0])


def share_intervals(counts: FloatArray, totals: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Ends of the mid-P intervals of many shares; 0 and 1 where there are no docs."""
    tail = (1 - level) / 2
    low = np.where(counts > 0, _share_at(tail, counts, totals), 0.0)
    high = np.where(counts < totals, _share_at(1 - tail, counts, totals), 1.0)
    return low, high


def exact_intervals(counts: FloatArray, totals: FloatArray, tail: float) -> tuple[FloatArray, FloatArray]:
    """Clopper and Pearson's bounds of many shares, each end missed with a probability of at most ``tail``.

    Source: Clopper & Pearson 1934.
    """
    none, all_of_them = counts == 0, counts == totals
    low = np.where(none, 0.0, betaincinv(np.where(none, 1.0, counts), totals - counts + 1, tail))
    high = np.where(all_of_them, 1.0, betaincinv(counts + 1, np.where(all_of_them, 1.0, totals - counts), 1 - tail))
    return low, high


def exact_upper_bound(count: int, total: int, level: float) -> float:
    """What a share exceeds with a probability of at most 1 - ``level``, exactly; nan where ``total`` is 0."""
    if total == 0:
        return float("nan")
    return float(exact_intervals(np.array([float(count)]), np.array([float(total)]), 1 - level)[1][0])


def discordant_interval(gained: float, lost: float, total: float, level: float) -> Interval:
    """Interval of a paired difference of shares, (gained - lost) / total, of two kinds of discordant docs.

    By MOVER from the intervals of both shares, whose estimates are negatively correlated as those of two cells of a
    multinomial distribution are. Two runs whose answers are all alike differ by up to what no discordant doc among
    ``total`` leaves open.
    """
    shares = np.array([gained, lost]) / total
    low, high = share_intervals(np.array([gained, lost], dtype=np.float64), np.full(2, float(total)), level)
    odds = shares / np.maximum(1 - shares, 1e-300)
    correlation = -float(np.sqrt(min(1.0, odds[0] * odds[1])))
    difference = float(shares[0] - shares[1])
    below, above = shares - low, high - shares
    down = float(np.sqrt(below[0] ** 2 + above[1] ** 2 - 2 * correlation * below[0] * above[1]))
    up = float(np.sqrt(above[0] ** 2 + below[1] ** 2 - 2 * correlation * above[0] * below[1]))
    return max(-1.0, difference - down), min(1.0, difference + up)


def _share_at(tail: float, counts: FloatArray, totals: FloatArray) -> FloatArray:
    """The share at which P(more) + P(as many) / 2 is ``tail``: between 0 and 1, by halving."""
    inside, outside = np.zeros(len(counts)), np.ones(len(counts))
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        if np.all((middle == inside) | (middle == outside)):
            break
        is_below = _upper_tail(middle, counts, totals) < tail
        inside, outside = np.where(is_below, middle, inside), np.where(is_below, outside, middle)
    return (inside + outside) / 2


def _upper_tail(share: FloatArray, counts: FloatArray, totals: FloatArray) -> FloatArray:
    at_least = np.where(counts > 0, betainc(np.maximum(counts, 1e-9), totals - counts + 1, share), 1.0)
    more = np.where(counts < totals, betainc(counts + 1, np.maximum(totals - counts, 1e-9), share), 0.0)
    return np.asarray((at_least + more) / 2)
