"""Accuracy against calibration error of several models, and which of them no other one beats in both."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, isnan, log10
from typing import Any, NamedTuple

from lm_eval_calibration.records.display import some


class TradeOffPoint(NamedTuple):
    """A model.

    Attributes:
        label: its name.
        accuracy: anything with ``value``, ``low`` and ``high``, ends of a 95% interval, nan where undefined.
        error: of calibration, likewise.
        on_front: whether no other model is as accurate and as well calibrated, and better in one of them.
    """

    label: str
    accuracy: Any
    error: Any
    on_front: bool


def prepare_trade_off(models: Mapping[str, tuple[Any, Any]]) -> list[TradeOffPoint]:
    """Return the models (accuracy and calibration error by label) that have both values."""
    defined = {label: pair for label, pair in models.items() if not any(isnan(found.value) for found in pair)}
    front = pareto_front({label: (accuracy.value, error.value) for label, (accuracy, error) in defined.items()})
    return [TradeOffPoint(label, *pair, label in front) for label, pair in defined.items()]


def ticks(values: Sequence[float], most: int = 6) -> list[float]:
    """Return round numbers, 1, 2 or 5 times a power of ten apart, from below the least value to above the largest.

    Args:
        values: finite; one at least.
        most: about how many numbers there may be.
    """
    low, high = min(values), max(values)
    rough = max(high - low, 1e-3) / (most - 1)
    power = 10 ** floor(log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return labels of the points (accuracy, error) that none beats: as good in both, better in one; by accuracy."""

    def is_beaten(acc: float, error: float) -> bool:
        return any(a >= acc and e <= error and (a, e) != (acc, error) for a, e in points.values())

    return sorted((label for label, point in points.items() if not is_beaten(*point)), key=lambda label: points[label])


def describe_trade_off(points: Sequence[TradeOffPoint]) -> str:
    """Return what the figure shows in words, for screen readers."""
    parts = [f"{p.label}: accuracy {p.accuracy.value:.3f}, ece {p.error.value:.3f}" for p in points]
    front = ", ".join(p.label for p in points if p.on_front)
    return f"Accuracy against ece. {some(parts, 30, '; ')}. On the Pareto front: {front}."
