"""Estimates with an interval: of a mean, a share, an area; by percentiles where nothing better is known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from lm_eval_calibration.metrics.uncertainty.resampling import bootstrap_estimates, mean_stderr
from lm_eval_calibration.metrics.validation import FloatArray, check_probability, undefined

Interval = tuple[float, float]

PSEUDO_DOCS = 4
"""Docs with the variance of calibrated ones that widen the interval of a mean, z^2 of them as in Wilson's."""

DRAWS = 1000


class Estimate(NamedTuple):
    """An estimate with its interval.

    Attributes:
        value: Estimate of the population's value, of a binned error that of which the observed one would be
            the median; within the interval.
        low: Lower end of the interval.
        high: Upper end of the interval.
        influence: [N] first-order effect of each doc on the value; of a bootstrapped one [draws] the centred
            values of the draws, whose correlation with another run's on the same draws is the estimates' own.
    """

    value: float
    low: float
    high: float
    influence: FloatArray


def undefined_estimate(n_docs: int, reason: str) -> Estimate:
    """Nan throughout, with an UndefinedMetricWarning."""
    nan = undefined(reason)
    return Estimate(nan, nan, nan, np.full(n_docs, nan))


def too_few_docs(n_docs: int) -> str | None:
    """Why there is no interval of so few docs."""
    return "an interval needs at least two docs" if n_docs < 2 else None


def check_level(level: float) -> float:
    """The level of an interval, between 0 and 1."""
    level = check_probability("level", level)
    if level in (0, 1):
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    return level


def mean_estimate(
    values: FloatArray,
    calibrated_variance: FloatArray,
    *,
    level: float,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Mean of one value a doc with a t interval; PSEUDO_DOCS more docs with ``calibrated_variance`` widen it.

    Without them twenty docs that are all correct would have an interval of width 0.
    """
    n_docs, mean = len(values), float(values.mean())
    if reason := too_few_docs(n_docs):
        return undefined_estimate(n_docs, reason)
    influence = values - mean
    squares = np.sum(influence**2) / (n_docs - 1) * n_docs + PSEUDO_DOCS * calibrated_variance.mean()
    half = t_quantile(level, n_docs) * np.sqrt(squares) / n_docs
    return Estimate(mean, float(max(limits[0], mean - half)), float(min(limits[1], mean + half)), influence)


def mean_of(
    per_doc: Callable[..., FloatArray],
    calibrated_variance: Callable[..., FloatArray] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> dict[str, Callable[..., Any]]:
    """What the mean of one value a doc brings: ``stderr`` and ``estimate``, functions of what the values are one of."""

    def stderr(*arrays: Any) -> float:
        return mean_stderr(per_doc(*arrays))

    def estimate(*arrays: Any, level: float) -> Estimate:
        values = per_doc(*arrays)
        variance = np.zeros(1) if calibrated_variance is None else calibrated_variance(*arrays)
        return mean_estimate(values, variance, level=level, limits=limits)

    return {"stderr": stderr, "estimate": estimate}


def area_estimate(value: float, influence: FloatArray, *, level: float, largest: float) -> Estimate:
    """Normal on the logit scale of value / largest, from the influence of each doc."""
    n_docs, influence = len(influence), influence - influence.mean()
    if reason := too_few_docs(n_docs):
        return undefined_estimate(n_docs, reason)
    stderr = float(np.std(influence, ddof=1) / np.sqrt(n_docs))
    if not 0 < value < largest or stderr == 0:
        return undefined_estimate(n_docs, "no interval: every doc is correct or none is, or the value is at its limit")
    low, high = logit_interval(value / largest, stderr / largest, t_quantile(level, n_docs))
    return Estimate(value, low * largest, high * largest, influence)


def percentile_estimate(
    statistic: Callable[..., float], *arrays: Any, level: float, seed: int, draws: int = DRAWS
) -> Estimate:
    """Value of any statistic with the percentile interval of a bootstrap over docs, widened to hold the value.

    Draws on which the statistic is nan (undefined) are left out. Of a biased statistic, such as a binned error, the
    interval does not hold its level.
    """
    value, n_docs = float(statistic(*arrays)), len(arrays[0])
    if reason := too_few_docs(n_docs):
        return undefined_estimate(n_docs, reason)
    drawn = bootstrap_estimates(statistic, *arrays, draws=draws, seed=seed)
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (value, value)
    influence = np.nan_to_num(drawn - (defined.mean() if len(defined) else 0.0))
    return Estimate(value, min(float(low), value), max(float(high), value), influence)


def wilson_interval(rate: float, n: int, level: float) -> Interval:
    """Wilson's interval of a share of n."""
    z = z_quantile(level)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(max(0, min(rate, middle - half))), float(min(1, max(rate, middle + half)))


def logit_interval(value: float, stderr: float, quantile: float) -> Interval:
    """Interval of a value in (0, 1) by its standard error on the logit scale."""
    middle, half = logit(value), quantile * stderr / (value * (1 - value))
    return float(expit(middle - half)), float(expit(middle + half))


def z_quantile(level: float) -> float:
    """Upper quantile of the normal distribution for a two-sided interval."""
    return float(-ndtri((1 - level) / 2))


def t_quantile(level: float, n_docs: int) -> float:
    """Upper quantile of Student's t with n_docs - 1 degrees of freedom for a two-sided interval."""
    return float(-stdtrit(n_docs - 1, (1 - level) / 2))
