"""Metrics of a model over time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import isnan
from typing import NamedTuple

DAYS = (1, 2, 7, 14)
MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)
"""How far apart marks of a time axis may be."""


class MetricHistory(NamedTuple):
    """One metric of some docs over time.

    Runs in which the metric is undefined are left out.

    Attributes:
        metric: its name.
        direction: which way is better, in words.
        dates: of the runs, rising.
        values: of each run.
        lows: lower ends of their intervals.
        highs: upper ends.
        drifted: whether the metric had drifted in each run.
        limits: the base run's value worsened by the tolerance, for each run; nan where there is none.
    """

    metric: str
    direction: str
    dates: tuple[datetime, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    drifted: tuple[bool, ...]
    limits: tuple[float, ...] = ()

    @property
    def bounds(self) -> tuple[float, float]:
        """From the least number that is shown to the largest."""
        shown = [x for x in (*self.values, *self.lows, *self.highs, *self.limits) if not isnan(x)]
        return min(shown), max(shown)


def time_ticks(first: datetime, last: datetime, most: int = 5) -> list[tuple[datetime, str]]:
    """Return times between two others at regular distances of the calendar, each with its label; at most ``most``.

    Of runs within a day the two ends, with their times.
    """
    if last - first < timedelta(days=1):
        return [(time, f"{time:%m-%d %H:%M}") for time in dict.fromkeys((first, last))]
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    for days in DAYS:
        start = midnight + timedelta(days=0 if first == midnight else 1)
        found = [start + timedelta(days=i) for i in range(0, (last - start).days + 1, days)]
        if len(found) <= most:
            return [(time, f"{time:%Y-%m-%d}") for time in found]
    for months in MONTHS:
        found = [time for time in _months(first, last) if (12 * time.year + time.month - 1) % months == 0]
        if len(found) <= most:
            break
    return [(time, f"{time:%Y-%m}") for time in found]


def _months(first: datetime, last: datetime) -> list[datetime]:
    """The first days of months between two times."""
    count = range(12 * first.year + first.month - 1, 12 * last.year + last.month)
    starts = [datetime(month // 12, month % 12 + 1, 1, tzinfo=first.tzinfo) for month in count]
    return [start for start in starts if first <= start <= last]


def describe_history(panels: Sequence[MetricHistory]) -> str:
    """Return what the figure shows in words, for screen readers."""
    parts = [f"{p.metric} from {p.values[0]:.4f} to {p.values[-1]:.4f}" for p in panels]
    n_drifted = sum(any(p.drifted) for p in panels)
    n_runs = max((len(p.values) for p in panels), default=0)
    had = "1 metric had" if n_drifted == 1 else f"{n_drifted} metrics had"
    return f"{n_runs} runs over time: {', '.join(parts)}; {had} drifted in some run"
