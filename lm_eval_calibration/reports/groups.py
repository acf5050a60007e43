"""Whether confidence holds in every group of docs, in words and as a table."""

from collections.abc import Callable, Mapping, Sequence

from lm_eval_calibration.metrics.group_errors import GroupError, GroupErrors
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import NOTHING, count, estimate, interval, number, percent, signed
from lm_eval_calibration.results.grouping import TASK

NameOf = Callable[[str], str]

MOST_ROWS = 12
"""Groups that are shown, those with the largest errors; JSON has all."""

HEADS = ("group", "docs", "mean confidence", "right", "confidence less right", "95%, all at once", "")


def what_groups_say(found: GroupErrors, task: NameOf = shown) -> str:
    """Return in how many groups confidence is shown to be off, and where most; only what the intervals say.

    Args:
        found: errors of all groups.
        task: how the name of a task is written.
    """
    if not found.groups:
        return "No field of the docs divides them into groups of 20 docs or more."
    off = [one for one in (*found.groups, *found.bins) if one.tendency]
    among = f"{count(len(found.groups))} groups" if len(found.groups) > 1 else "1 group"
    if not off:
        return f"In none of {among} is confidence shown to be off; {_largest(found)}."
    whole = [one for one in off if one.bin is None]
    bins = f"; {_only_in_bins(len(off) - len(whole))}" if len(off) > len(whole) else ""
    if not whole:
        return f"In none of {among} as a whole is confidence shown to be off{bins}; {_largest(found)}."
    worst = _said(whole[0], task)
    return f"In {count(len(whole))} of {among} confidence is off, most in {worst}{bins}; {_largest(found)}."


def rows_of_groups(errors: Sequence[GroupError], task: NameOf = shown) -> list[tuple[str, ...]]:
    """Return a row a group, of those with the largest errors; ``task``: how the name of a task is written."""
    return [
        (
            _named(one, task),
            count(one.n_docs),
            number(one.confidence, 3),
            number(one.accuracy, 3),
            signed(one.gap, 3),
            interval(one.low, one.high, "+.3f"),
            one.tendency or NOTHING,
        )
        for one in errors[:MOST_ROWS]
    ]


def left_out(reasons: Mapping[str, str]) -> str:
    """Return which fields make no groups, and why, a reason at a time; "" where there are none."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(fields)}: {reason}" for reason, fields in names.items())


def _named(one: GroupError, task: NameOf) -> str:
    """The group in words, its task as people say it."""
    return one._replace(group=tuple((field, task(v) if field == TASK else v) for field, v in one.group)).name


def _said(one: GroupError, task: NameOf) -> str:
    points = f"{abs(one.gap) * 100:.1f} points {one.tendency}"
    return f"{_named(one, task)} ({points}, {percent(one.accuracy)} right of {count(one.n_docs)})"


def _only_in_bins(n: int) -> str:
    return f"within groups, {count(n)} {'range' if n == 1 else 'ranges'} of confidence {'is' if n == 1 else 'are'} off"


def _largest(found: GroupErrors) -> str:
    return f"the largest error of a group is {estimate(found.largest, 3)}"
