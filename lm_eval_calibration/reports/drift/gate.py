"""The test of drift: is a metric worse than in the base run, by more than is tolerated?

For each metric and task the null hypothesis is that the population's worsening is at most the tolerance. Its p-value
is one-sided, from the interval of the change, on the side that faces the tolerance; Holm's procedure adjusts all of
them together. So when nothing has become worse by more than its tolerance, any alarm at all has probability 5% or
less. A point estimate beyond the tolerance is no alarm by itself: at a true change of just the tolerance that would
alarm up to half of the time (``tests/simulations/drift_gate.py``).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from lm_eval_calibration import metrics
from lm_eval_calibration.results import Difference, RunComparison, TaskComparison
from lm_eval_calibration.results.columns import metric_of

ALPHA = 0.05
"""Probability of any false alarm, at most."""

TOLERANCE = 0.02
"""By how much a metric may become worse unless another tolerance is given."""

Verdict = Literal["drifted", "within", "unclear", "undefined"]


class Test(NamedTuple):
    """One metric of one task ("all" for the docs of all tasks).

    ``worsening`` is the estimate of the change in the bad direction (of a metric whose sign matters, its size), with
    its interval. ``p_value`` is that of a worsening of at most the tolerance. The verdict is "drifted" beyond the
    tolerance; "within" it, as its whole interval is; "unclear" where these docs are too few to tell; "undefined".
    """

    task: str
    metric: str
    base: float
    new: float
    worsening: float
    low: float
    high: float
    tolerance: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    paired: bool
    n_base: int
    n_new: int
    reason: str


def gate(comparison: RunComparison, tolerances: Mapping[str, float], *, alpha: float = ALPHA) -> tuple[Test, ...]:
    """Test every metric that has a tolerance, for each task and, where there are several, over all docs.

    Args:
        comparison: the new run (b) against the base run (a).
        tolerances: by metric, at least 0.
        alpha: probability of any false alarm, at most.
    """
    scopes = list(comparison.tasks)
    if len(scopes) > 1 and comparison.pooled is not None:
        scopes.append(comparison.pooled)
    tests = [
        _test(scope, difference, tolerances[name], comparison.level)
        for scope in scopes
        for name, difference in scope.differences.items()
        if name in tolerances
    ]
    adjusted = metrics.holm([test.p_value for test in tests])
    return tuple(
        test._replace(p_adjusted=float(p), verdict=_verdict(test, float(p), alpha))
        for test, p in zip(tests, adjusted, strict=True)
    )


def _test(scope: TaskComparison, found: Difference, tolerance: float, level: float) -> Test:
    worsening, low, high = _worsening(found)
    return Test(
        task=scope.task,
        metric=found.name,
        base=found.a,
        new=found.b,
        worsening=worsening,
        low=low,
        high=high,
        tolerance=tolerance,
        p_value=_p_value(found, worsening, low, tolerance, level),
        p_adjusted=float("nan"),
        verdict="undefined",
        paired=scope.paired,
        n_base=scope.n_a,
        n_new=scope.n_b,
        reason=found.reason,
    )


def _worsening(found: Difference) -> tuple[float, float, float]:
    """The change in the bad direction with its interval."""
    falls = metric_of(found.name).higher_is_better
    if falls is None:  # either way is a drift
        falls = found.difference < 0
    change = (-found.difference, -found.high, -found.low) if falls else (found.difference, found.low, found.high)
    worsening, low, high = (x + 0.0 for x in change)  # no -0.0
    return worsening, low, high


def _p_value(found: Difference, worsening: float, low: float, tolerance: float, level: float) -> float:
    """Normal, with the standard error that the interval's end towards the tolerance stands for."""
    if np.isnan(worsening) or np.isnan(low):
        return float("nan")
    beyond, spread = worsening - tolerance, (worsening - low) / -ndtri((1 - level) / 2)
    one_sided = float(ndtr(-beyond / spread)) if spread > 0 else float(beyond <= 0)
    return one_sided if metric_of(found.name).higher_is_better is not None else min(1.0, 2 * one_sided)


def _verdict(test: Test, p_adjusted: float, alpha: float) -> Verdict:
    if np.isnan(p_adjusted):
        return "undefined"
    if p_adjusted <= alpha:
        return "drifted"
    return "within" if test.high <= test.tolerance else "unclear"
