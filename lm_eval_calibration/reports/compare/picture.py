"""Accuracy against calibration as a picture, with the runs that no other one beats in both."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.style import COLOURS, MARKERS, drawing, shortened, to_png, to_svg
from lm_eval_calibration.reports.compare.table import Cell, Scope

ACCURACY, ERROR = "acc", "ece"
"""Metrics of the two axes."""


class Point(NamedTuple):
    """A run in the picture.

    Attributes:
        label: its name.
        accuracy: cell of its accuracy.
        error: cell of its calibration error.
        on_front: whether no other run is as accurate and as well calibrated, and better in one of them.
    """

    label: str
    accuracy: Cell
    error: Cell
    on_front: bool


def prepare_trade_off(scope: Scope) -> list[Point]:
    """Points of the runs that have both metrics, in the order of the table.

    Raises:
        UserError: the table has not both of them.
    """
    for name in (ACCURACY, ERROR):
        if any(name not in row for row in scope.rows.values()):
            raise UserError(f"the picture shows {ACCURACY} against {ERROR}: {name} is not among the metrics")
    cells = {label: (row[ACCURACY], row[ERROR]) for label, row in scope.rows.items()}
    defined = {
        label: (acc.value, error.value)
        for label, (acc, error) in cells.items()
        if not (math.isnan(acc.value) or math.isnan(error.value))
    }
    front = pareto_front(defined)
    return [Point(label, *cells[label], label in front) for label in defined]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Labels of the points (accuracy, error) that no other one beats: as good in both, better in one; by accuracy."""

    def is_beaten(acc: float, error: float) -> bool:
        return any(a >= acc and e <= error and (a, e) != (acc, error) for a, e in points.values())

    return sorted((label for label, point in points.items() if not is_beaten(*point)), key=lambda label: points[label])


def describe(points: list[Point]) -> str:
    """Say what the picture shows, for who can't see it."""
    said = [f"{p.label}: accuracy {p.accuracy.value:.3f}, {ERROR} {p.error.value:.3f}" for p in points]
    front = ", ".join(p.label for p in points if p.on_front)
    return f"Accuracy against {ERROR}. {'; '.join(said)}. On the Pareto front: {front}."


def draw_trade_off(scope: Scope, form: str) -> str | bytes:
    """Draw the picture as "svg", "inline" (SVG for a page) or "png"."""
    points = prepare_trade_off(scope)
    with drawing(7.0, 4.2 + 0.22 * len(points)) as (figure, (ax,)):
        for index, point in enumerate(points):
            ax.errorbar(
                point.accuracy.value,
                point.error.value,
                xerr=_bars(point.accuracy),
                yerr=_bars(point.error),
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=7,
                elinewidth=1,
                capsize=2,
                linestyle="none",
                label=shortened(point.label, 60) + (" (front)" if point.on_front else ""),
            )
        front = sorted((p.accuracy.value, p.error.value) for p in points if p.on_front)
        if len(front) > 1:
            ax.plot(*zip(*front, strict=True), linestyle="--", linewidth=1, color=COLOURS[-1], zorder=0)
        ax.set_xlabel("accuracy (higher is better)")
        ax.set_ylabel(f"{ERROR} (lower is better)")
        ax.grid(alpha=0.25)
        figure.legend(loc="outside lower left", ncols=1, fontsize=9)
        if form == "png":
            return to_png(figure)
        return to_svg(figure, label=describe(points), inline=form == "inline")


def _bars(cell: Cell) -> list[list[float]] | None:
    if math.isnan(cell.low):
        return None
    return [[max(0.0, cell.value - cell.low)], [max(0.0, cell.high - cell.value)]]
