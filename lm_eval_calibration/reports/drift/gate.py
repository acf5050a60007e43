"""The test of drift: is a metric worse than in the base run, by more than is tolerated?

For each metric and task the null hypothesis is that the population's worsening is at most the tolerance. Its p-value
is one-sided, from the interval of the change, on the side that faces the tolerance; Holm's procedure adjusts all of
them together. So when nothing has become worse by more than its tolerance, any alarm at all has probability 5% or
less. A point estimate beyond the tolerance is no alarm by itself: at a true change of just the tolerance that would
alarm up to half of the time (``tests/simulations/drift_gate.py``).
"""

from collections.abc import Mapping, Sequence
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

Verdict = Literal["drifted", "unchanged", "within", "unclear", "undefined"]


class Test(NamedTuple):
    """One metric of one task ("all" for the docs of all tasks).

    ``worsening`` is the estimate of the change in the bad direction (of a metric whose sign matters, away from 0), with
    its interval. ``p_value`` is that of a worsening of at most the tolerance. The verdict is "drifted" beyond the
    tolerance; "unchanged" where every doc has the same in both runs; "within" the tolerance, as the whole interval is;
    "unclear" where these docs are too few to tell; "undefined".
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


def gate(comparison: RunComparison, tolerances: Mapping[str, float]) -> tuple[Test, ...]:
    """Test every metric that has a tolerance, for each task and, where there are several, over all docs.

    Args:
        comparison: the new run (b) against the base run (a).
        tolerances: by metric, at least 0.
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
        test._replace(p_adjusted=float(p), verdict=_verdict(test, float(p)))
        for test, p in zip(tests, adjusted, strict=True)
    )


def docs_to_settle(tests: Sequence[Test]) -> float:
    """Return about how many docs would settle every unclear test, were the changes as large as they are estimated.

    An interval shrinks as 1 / sqrt(docs): a change below the tolerance is shown to be within it once the interval's
    end reaches it, one beyond it has drifted once its p-value is below 0.05 / (number of tests), the first step of
    Holm's procedure. 0 where no test is unclear, inf where an estimate is just the tolerance.
    """
    n_tests = sum(not np.isnan(test.p_value) for test in tests)
    return max((_docs_to_settle(test, ALPHA / n_tests) for test in tests if test.verdict == "unclear"), default=0.0)


def _docs_to_settle(test: Test, alpha: float) -> float:
    room = test.tolerance - test.worsening
    if room == 0:
        return float("inf")
    z = float(ndtri(0.975))
    reach = test.high - test.worsening if room > 0 else (test.worsening - test.low) / z * -float(ndtri(alpha))
    return float(np.ceil(min(test.n_base, test.n_new) * max(1.0, reach / abs(room)) ** 2))


def _test(scope: TaskComparison, found: Difference, tolerance: float, level: float) -> Test:
    changes = _worsenings(found)
    worsening, low, high = (float(np.min(ends)) + 0.0 for ends in zip(*changes, strict=True))  # + 0.0: no -0.0
    p_value = float(np.max([_p_value(*change, tolerance, level) for change in changes]))
    return Test(
        task=scope.task,
        metric=found.name,
        base=found.a,
        new=found.b,
        worsening=worsening,
        low=low,
        high=high,
        tolerance=tolerance,
        p_value=p_value if metric_of(found.name).higher_is_better is not None else min(1.0, 2 * p_value),
        p_adjusted=float("nan"),
        verdict="unchanged" if found.is_same and not np.isnan(worsening) else "undefined",
        paired=scope.paired,
        n_base=scope.n_a,
        n_new=scope.n_b,
        reason=found.reason,
    )


def _worsenings(found: Difference) -> list[tuple[float, float, float]]:
    """Changes, with their intervals, of which the smallest is that in the bad direction.

    One, of a metric that is better the higher or the lower it is. One whose sign matters is worse farther from 0: where
    b is above 0, |b| - |a| is the smaller one of b - a and b + a; where it is below, of a - b and -b - a.
    """
    change = (found.difference, found.low, found.high)
    higher_is_better = metric_of(found.name).higher_is_better
    if higher_is_better is not None:
        return [_reversed(*change) if higher_is_better else change]
    if found.total is None:
        raise ValueError(f"{found.name}: its sign matters, so the difference must bring the interval of the sum")
    both = [change, (found.a + found.b, *found.total)]
    return [_reversed(*one) for one in both] if found.b < 0 else both


def _reversed(value: float, low: float, high: float) -> tuple[float, float, float]:
    return -value, -high, -low


def _p_value(worsening: float, low: float, high: float, tolerance: float, level: float) -> float:
    """Normal, one-sided, with the standard error that the interval's end towards the tolerance stands for."""
    if np.isnan([worsening, low, high]).any():
        return float("nan")
    beyond, spread = worsening - tolerance, (worsening - low) / -ndtri((1 - level) / 2)
    return float(ndtr(-beyond / spread)) if spread > 0 else float(beyond <= 0)


def _verdict(test: Test, p_adjusted: float) -> Verdict:
    if np.isnan(p_adjusted) or test.verdict == "unchanged":
        return test.verdict
    if p_adjusted <= ALPHA:
        return "drifted"
    return "within" if test.high <= test.tolerance else "unclear"
