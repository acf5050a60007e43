"""Intervals of shares of docs, exact for few docs and for shares of 0 and 1, where a bootstrap has no spread."""

import math

from scipy.special import betaincinv


def share_interval(count: int, total: int) -> tuple[float, float, float]:
    """Share count / total and its 95% Clopper-Pearson interval; nan where total is 0."""
    if total == 0:
        return math.nan, math.nan, math.nan
    low = float(betaincinv(count, total - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 0.975)) if count < total else 1.0
    return count / total, low, high
