"""Estimates with an interval: of a mean, a share, an area; by percentiles where nothing better is known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit

from lm_eval_calibration.metrics.uncertainty.clusters import influence_stderr, n_apart, t_quantile
from lm_eval_calibration.metrics.uncertainty.means import Values, mean_interval, values_of
from lm_eval_calibration.metrics.uncertainty.resampling import bootstrap_estimates, mean_stderr
from lm_eval_calibration.metrics.uncertainty.shares import Interval
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_probability, undefined

DRAWS = 1000

FEWEST_OF_A_CLASS = 10
"""Right docs, and wrong ones, from which areas and the skill score have an interval."""


class Estimate(NamedTuple):
    """An estimate with its interval.

    Attributes:
        value: Estimate of the population's value, of a binned error that of which the observed one would be
            the median; within the interval.
        low: Lower end of the interval.
        high: Upper end of the interval.
        influence: [N] first-order effect of each doc on the value; of a bootstrapped one [draws] the centred
            values of the draws, whose correlation with another run's on the same draws is the estimates' own; of
            clustered docs the sums of the clusters.
        values: Of a mean the docs' values, from which a paired difference is computed doc by doc.
    """

    value: float
    low: float
    high: float
    influence: FloatArray
    values: Values | None = None


def undefined_estimate(n_docs: int, reason: str) -> Estimate:
    """Nan throughout, with an UndefinedMetricWarning."""
    nan = undefined(reason)
    return Estimate(nan, nan, nan, np.full(n_docs, nan))


def too_few_docs(n_docs: int) -> str | None:
    """Why there is no interval of so few docs."""
    return "an interval needs at least two docs" if n_docs < 2 else None


def too_few_of_a_class(hit: FloatArray, cluster: IntArray | None) -> str | None:
    """Why there is no interval of what ranks right docs against wrong ones, or divides by their numbers.

    With few of either a normal approximation fails, on whatever scale: the docs that matter are those that happen not
    to be there. Docs of one cluster count once.
    """
    n_right, n_wrong = (n_apart(hit == of_class, cluster) for of_class in (1, 0))
    if min(n_right, n_wrong) >= FEWEST_OF_A_CLASS:
        return None
    what = "docs" if cluster is None else "docs in different clusters"
    needed = f"{FEWEST_OF_A_CLASS} right and {FEWEST_OF_A_CLASS} wrong {what}"
    return f"too few to tell: an interval needs {needed}, and there are {n_right} and {n_wrong}"


def rare_class_quantile(hit: FloatArray, level: float, cluster: IntArray | None) -> float:
    """Student's t of as many docs as the rarer class has, right or wrong: these make most of the variance."""
    rarer = min(n_apart(hit == of_class, cluster) for of_class in (1, 0))
    return max(t_quantile(level, rarer), t_quantile(level, len(hit), cluster))


def check_level(level: float) -> float:
    """The level of an interval, between 0 and 1."""
    level = check_probability("level", level)
    if level in (0, 1):
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    return level


def mean_of(
    per_doc: Callable[..., FloatArray],
    answers: Callable[..., tuple[FloatArray, FloatArray, FloatArray]] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> dict[str, Callable[..., Any]]:
    """What the mean of one value a doc brings: ``stderr`` and ``estimate``.

    per_doc: from the checked arrays to the values. answers: from the same to what
    :func:`~lm_eval_calibration.metrics.uncertainty.means.values_of` takes: where answers are wrong, what that adds,
    and how likely it was; None where values don't depend on answers. limits: between which the mean lies.
    """

    def stderr(*arrays: Any, cluster: IntArray | None = None) -> float:
        return mean_stderr(per_doc(*arrays), cluster)

    def estimate(*arrays: Any, level: float, cluster: IntArray | None = None) -> Estimate:
        values = per_doc(*arrays)
        nothing = np.zeros(len(values))
        of_answers = answers(*arrays) if answers is not None else (nothing, nothing, nothing)
        return mean_estimate(values_of(values, *of_answers, cluster=cluster), level=level, limits=limits)

    return {"stderr": stderr, "estimate": estimate}


def mean_estimate(values: Values, *, level: float, limits: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Mean of one value a doc."""
    n_docs, mean = len(values.value), float(values.value.mean())
    if reason := too_few_docs(n_docs):
        return undefined_estimate(n_docs, reason)
    low, high = mean_interval(values, level)
    return Estimate(mean, max(limits[0], low), min(limits[1], high), values.value - mean, values)


def area_estimate(
    value: float,
    influence: FloatArray,
    hit: FloatArray,
    *,
    level: float,
    largest: float,
    cluster: IntArray | None = None,
) -> Estimate:
    """Student's t on the logit scale of value / largest, from the influence of each doc."""
    n_docs, influence = len(influence), influence - influence.mean()
    if reason := too_few_docs(n_docs) or too_few_of_a_class(hit, cluster):
        return undefined_estimate(n_docs, reason)
    stderr = influence_stderr(influence, cluster)
    if not 0 < value < largest or stderr == 0:
        return undefined_estimate(n_docs, "no interval: every doc is correct or none is, or the value is at its limit")
    low, high = logit_interval(value / largest, stderr / largest, rare_class_quantile(hit, level, cluster))
    return Estimate(value, low * largest, high * largest, influence)


def percentile_estimate(
    statistic: Callable[..., float],
    *arrays: Any,
    level: float,
    seed: int,
    draws: int = DRAWS,
    cluster: IntArray | None = None,
) -> Estimate:
    """Value of any statistic with a bootstrap's percentile interval, over docs or clusters, widened to hold the value.

    Draws on which the statistic is nan (undefined) are left out. Of a biased statistic, such as a binned error, the
    interval does not hold its level.
    """
    value, n_docs = float(statistic(*arrays)), len(arrays[0])
    if reason := too_few_docs(n_docs):
        return undefined_estimate(n_docs, reason)
    drawn = bootstrap_estimates(statistic, *arrays, draws=draws, seed=seed, cluster=cluster)
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (value, value)
    influence = np.nan_to_num(drawn - (defined.mean() if len(defined) else 0.0))
    return Estimate(value, min(float(low), value), max(float(high), value), influence)


def logit_interval(value: float, stderr: float, quantile: float) -> Interval:
    """Interval of a value in (0, 1) by its standard error on the logit scale."""
    middle, half = logit(value), quantile * stderr / (value * (1 - value))
    return float(expit(middle - half)), float(expit(middle + half))
