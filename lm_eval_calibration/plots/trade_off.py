"""Accuracy against calibration error of several models, and which of them no other one beats in both."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import NamedTuple, Protocol


class Estimate(Protocol):
    """A value with its 95% interval, nan where undefined."""

    @property
    def value(self) -> float:
        """The estimate."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""


class TradeOffPoint(NamedTuple):
    """A model.

    Attributes:
        label: its name.
        accuracy: with its interval.
        error: of calibration, likewise.
        on_front: whether no other model is as accurate and as well calibrated, and better in one of them.
    """

    label: str
    accuracy: Estimate
    error: Estimate
    on_front: bool


def prepare_trade_off(models: Mapping[str, tuple[Estimate, Estimate]]) -> list[TradeOffPoint]:
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
    parts = [f"{p.label}: accuracy {p.accuracy.value:.3f}, {error} {p.error.value:.3f}" for p in points]
    front = ", ".join(p.label for p in points if p.on_front)
    return f"Accuracy against {error}. {'; '.join(parts)}. On the Pareto front: {front}."
