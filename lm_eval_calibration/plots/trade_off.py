"""Accuracy against calibration error of several models, and which of them no other one beats in both."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple


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


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return labels of the points (accuracy, error) that none beats: as good in both, better in one; by accuracy."""

    def is_beaten(acc: float, error: float) -> bool:
        return any(a >= acc and e <= error and (a, e) != (acc, error) for a, e in points.values())

    return sorted((label for label, point in points.items() if not is_beaten(*point)), key=lambda label: points[label])


def describe_trade_off(points: Sequence[TradeOffPoint], error: str) -> str:
    """Return what the figure shows in words, for screen readers."""
    parts = [f"{p.label}: accuracy {p.accuracy.value:.3f}, {error} {p.error.value:.3f}" for p in points[:30]]
    parts += [f"and {len(points) - 30} more"] if len(points) > 30 else []
    front = ", ".join(p.label for p in points if p.on_front)
    return f"Accuracy against {error}. {'; '.join(parts)}. On the Pareto front: {front}."
