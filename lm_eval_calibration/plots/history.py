"""Metrics of a model over time."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class MetricHistory(NamedTuple):
    """One metric over time: values with the ends of their intervals, and whether it had drifted on any task.

    Runs in which the metric is undefined are left out. ``direction`` says in words which way is better.
    """

    metric: str
    direction: str
    dates: tuple[datetime, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    drifted: tuple[bool, ...]


def describe_history(panels: Sequence[MetricHistory]) -> str:
    """Return what the figure shows in words, for screen readers."""
    parts = [f"{p.metric} from {p.values[0]:.4f} to {p.values[-1]:.4f}" for p in panels]
    n_drifted = sum(any(p.drifted) for p in panels)
    n_runs = max((len(p.values) for p in panels), default=0)
    return f"{n_runs} runs over time: {', '.join(parts)}; {n_drifted} metrics had drifted in some run"
