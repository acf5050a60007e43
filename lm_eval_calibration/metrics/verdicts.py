"""What is said in words of numbers: only what their interval and test say, at the same level.

Every report, table and sentence takes its words from here, so none contradicts the interval beside it.
"""

from typing import Literal

from lm_eval_calibration.metrics.uncertainty.nulls import Null
from lm_eval_calibration.metrics.uncertainty.shares import Interval

ALPHA = 0.05
"""Probability with which a word is said of what is not so, at most."""

Change = Literal["better", "worse", ""]
Tendency = Literal["overconfident", "underconfident", ""]


def side_of_0(interval: Interval) -> int:
    """1 where the interval lies above 0, -1 where it lies below, 0 where it holds 0 or is undefined."""
    low, high = interval
    return int(low > 0) - int(high < 0)


def change_of(higher_is_better: bool | None, difference: Interval, a: Interval, b: Interval) -> Change:
    """Whether run b is better or worse than run a; "" where the docs don't tell.

    A metric whose sign matters is better nearer to 0: b^2 - a^2 = (b - a) (b + a), so both the difference and the sum
    must have a known sign. The sum's interval is the sum of the runs' own.

    Args:
        higher_is_better: None where the sign matters.
        difference: Interval of b less a.
        a: Interval of the metric of run a.
        b: Interval of that of run b.
    """
    side = side_of_0(difference)
    if higher_is_better is None:
        side *= side_of_0(sum_of(a, b))
    good = 1 if higher_is_better else -1
    return "better" if side == good else "worse" if side == -good else ""


def sum_of(a: Interval, b: Interval) -> Interval:
    """Interval of the sum of what two intervals hold, whatever their correlation."""
    return a[0] + b[0], a[1] + b[1]


def tendency(interval: Interval, null: Null | None, *, alpha: float = ALPHA) -> Tendency:
    """Whether a model is over- or underconfident: its interval leaves 0 out, and its null is rejected.

    Args:
        interval: Of ``overconfidence``.
        null: Of the same docs; None or undefined where there is none.
        alpha: Its level, where this is one of several words.
    """
    side = side_of_0(interval)
    if null is not None and null.p_value > alpha:
        side = 0
    return "overconfident" if side > 0 else "underconfident" if side < 0 else ""
