"""The prepared figures drawn by matplotlib."""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from lm_eval_calibration.decisions import GuaranteeCurve
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.history import MetricHistory, describe_history, time_ticks
from lm_eval_calibration.plots.reliability import Reliability
from lm_eval_calibration.plots.risk_coverage import RiskCoveragePoint
from lm_eval_calibration.plots.style import (
    ACCURACY,
    COLOURS,
    COLUMN,
    CONFIDENCE,
    COVERAGE,
    ECE,
    MARKERS,
    PAGE,
    RISK,
    Form,
    save,
    shortened,
    styled_figure,
    wrapped,
)
from lm_eval_calibration.plots.trade_off import TradeOffPoint, describe_trade_off

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSIDE, OUTSIDE = COLOURS[:2]
"""Colours of a bar whose accuracy lies in the consistency band, and of one whose accuracy doesn't."""

OFF: dict[str, Any] = {"color": "#f0b48a", "edgecolor": OUTSIDE, "linewidth": 1.2}
BAND, LINE = "#bbbbbb", "#444444"
IF_CALIBRATED: dict[str, Any] = {"color": BAND, "alpha": 0.6, "edgecolor": LINE, "linewidth": 0.5}

FEW = 10
"""Docs of a bin below which it is drawn faintly."""

HISTORY_COLUMNS, HISTORY_TICKS = 2, 4


def plot_reliability(data: Reliability, ax: "Axes | None" = None, *, with_legend: bool = True) -> "Axes":
    """Draw accuracy as bars, mean confidence as marks, and where calibration would put the bars.

    Args:
        data: of the diagram.
        ax: matplotlib axes to draw on; new ones where not given.
        with_legend: in the axes.

    Raises:
        UserError: no axes are given and matplotlib is not installed.
    """
    ax = new_axes() if ax is None else ax
    for b in (b for b in data.bins if b.n_docs):
        middle, width = (b.low + b.high) / 2, b.high - b.low
        fill = OFF if b.is_off else {"color": INSIDE}
        alpha = 0.35 if b.n_docs < FEW else 1.0  # a bar of a few docs is no loud one
        ax.bar(middle, b.accuracy, width * 0.94, alpha=alpha, **fill)
        ax.bar(middle, max(b.band_high - b.band_low, 0.004), width * 0.5, b.band_low, **IF_CALIBRATED)
        ax.plot([b.low, b.high], [b.confidence] * 2, color=LINE, linewidth=1.6)
    unit_axes(ax)
    ax.set_title(f"ECE {data.ece:.3f} of {data.n_docs:,} docs, {len(data.bins)} bins")
    if with_legend:
        ax.legend(handles=_legend(), loc="upper left", fontsize=6, handlelength=1.2)
    return ax


def unit_axes(ax: "Axes") -> None:
    """Give axes of confidence and accuracy, with the diagonal of calibrated models."""
    ax.plot([0, 1], [0, 1], color=LINE, linewidth=0.8, linestyle=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=CONFIDENCE, ylabel=ACCURACY)
    in_percent(ax.xaxis, ax.yaxis)


def series(index: int) -> dict[str, Any]:
    """Return colour and mark of a series."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def in_percent(*axes: Any) -> None:
    """Write shares on axes as pages do: 20%."""
    for axis in axes:
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")


def _legend() -> list[Any]:
    """What the parts of a reliability diagram are, the same in every one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=INSIDE, label=ACCURACY),
        Patch(facecolor=OFF["color"], edgecolor=OUTSIDE, label=f"{ACCURACY} outside the band"),
        Patch(color=INSIDE, alpha=0.35, label=f"of fewer than {FEW} docs"),
        Patch(facecolor=BAND, alpha=0.6, edgecolor=LINE, label="band: if calibrated (95%)"),
        Line2D([], [], color=LINE, linewidth=1.6, label=CONFIDENCE),
    ]


def plot_calibration_curve(data: Reliability, ax: "Axes | None" = None, *, name: str = "") -> "Axes":
    """Draw accuracy against mean confidence, a point for each bin with docs; several curves share axes and legend.

    Raises:
        UserError: no axes are given and matplotlib is not installed.
    """
    ax = new_axes() if ax is None else ax
    number = len(ax.get_lines())
    if not number:
        unit_axes(ax)
        ax.get_lines()[0].set_label("calibrated")
    bins = [b for b in data.bins if b.n_docs]
    label = f"{shortened(name, 40)} (ECE {data.ece:.3f})".strip()
    ax.plot([b.confidence for b in bins], [b.accuracy for b in bins], **series(number), label=label)
    ax.legend(loc="upper left", fontsize=8)
    return ax


def plot_risk_coverage(points: Sequence[RiskCoveragePoint], ax: "Axes | None" = None, *, name: str = "") -> "Axes":
    """Draw how often the model is wrong when it answers only what it is surest of; several curves share axes.

    Raises:
        UserError: no axes are given and matplotlib is not installed.
    """
    ax = new_axes() if ax is None else ax
    colour = COLOURS[len(ax.get_lines()) % len(COLOURS)]
    coverage, risk = [point.coverage for point in points], [point.risk for point in points]
    ax.plot(coverage, risk, color=colour, drawstyle="steps-post", label=shortened(name, 40) or None)
    ax.set(xlim=(0, 1), xlabel=COVERAGE, ylabel=RISK)
    ax.set_ylim(bottom=0)
    in_percent(ax.xaxis, ax.yaxis)
    ax.grid(alpha=0.25)
    if name:
        ax.legend(loc="best", fontsize=8)
    return ax


def draw_reliability(
    diagrams: Sequence[tuple[str, Reliability]], title: str, form: Form, *, n_columns: int | None = None
) -> bytes:
    """Return several diagrams beside each other.

    Args:
        diagrams: title and data of each.
        title: of the figure.
        form: of the file.
        n_columns: diagrams beside each other; up to three where not given.

    Raises:
        UserError: matplotlib is not installed.
    """
    n_columns = n_columns or min(3, len(diagrams))
    n_rows = math.ceil(len(diagrams) / n_columns)
    width = COLUMN if n_columns == 1 else PAGE
    side = width / n_columns
    with styled_figure(width, (side + 0.3) * n_rows + 0.3, (n_rows, n_columns)) as (figure, panels):
        for ax, (name, data) in zip(panels, diagrams, strict=False):
            plot_reliability(data, ax, with_legend=False)
            ax.set_title(f"{wrapped(name, 108 // max(3, n_columns))}\n{ax.get_title()}", fontsize=7)
        for ax in panels[len(diagrams) :]:
            ax.set_axis_off()
        figure.suptitle(shortened(title, 24 * n_columns + 24))
        figure.legend(handles=_legend(), loc="outside lower center", ncols=2 if n_columns == 1 else 5)
        return save(figure, form, label=title)


MANY_POINTS = 30
"""Models from which on a legend of all can't be read."""


def draw_trade_off(points: Sequence[TradeOffPoint], form: Form) -> bytes:
    """Return accuracy against calibration error, with 95% intervals and the Pareto front as a dashed line.

    Of many models only those on the front have names and intervals.

    Raises:
        UserError: matplotlib is not installed.
    """
    named = [point for point in points if point.on_front] if len(points) > MANY_POINTS else list(points)
    rest = [point for point in points if point not in named]
    with styled_figure(COLUMN, 3.0 + 0.17 * (len(named) + bool(rest) + 1)) as (figure, (ax,)):
        if rest:
            pairs = [(point.accuracy.value, point.error.value) for point in rest]
            ax.plot(*zip(*pairs, strict=True), ".", color="0.6", markersize=4, zorder=0, label=f"{len(rest)} others")
        for index, point in enumerate(named):
            style: dict[str, Any] = {**series(index), "markersize": 5, "linestyle": "none"}
            ends = _error_bars(point.error), _error_bars(point.accuracy)  # up and down, then left and right
            ax.errorbar(point.accuracy.value, point.error.value, *ends, **style, elinewidth=1, capsize=2)
            label = shortened(point.label, 44) + (" (front)" if point.on_front else "")
            ax.plot([], [], **style, label=label)  # a mark without error bars
        front = sorted((p.accuracy.value, p.error.value) for p in points if p.on_front)
        if len(front) > 1:
            ax.plot(*zip(*front, strict=True), linestyle="--", linewidth=1, color=LINE, zorder=0, label="Pareto front")
        ax.set(xlabel=f"{ACCURACY}, higher is better", ylabel=f"{ECE}, lower is better")
        ax.set_title("Accuracy against calibration")
        ax.grid(alpha=0.25)
        figure.legend(loc="outside lower left", ncols=1)
        return save(figure, form, label=describe_trade_off(points))


def draw_decision(curve: GuaranteeCurve, error_rate: float, title: str, form: Form) -> bytes:
    """Return how many questions it answers by the share of wrong answers that is allowed: promised, and possible.

    Raises:
        UserError: matplotlib is not installed.
    """
    with styled_figure(PAGE, 4.4) as (figure, (ax,)):
        at = curve.error_rate.index(error_rate)
        ax.plot(curve.error_rate, curve.possible, color=COLOURS[1], linestyle="--", label="possible, known afterwards")
        ax.plot(curve.error_rate, curve.guaranteed, color=COLOURS[0], linewidth=2, label="with a guarantee")
        ax.axvline(error_rate, color=LINE, linewidth=0.8, linestyle=":")
        ax.plot([error_rate], [curve.guaranteed[at]], "o", color=COLOURS[0], markersize=8)
        in_percent(ax.xaxis, ax.yaxis)
        ax.set(xlim=(0, max(curve.error_rate)), ylim=(0, 1.02), title=title)
        ax.set(xlabel="wrong answers allowed, of those given", ylabel="questions answered")
        ax.legend(loc="best")
        ax.grid(alpha=0.25)
        label = (
            f"With at most {error_rate:.3g} of its answers wrong it answers {curve.guaranteed[at]:.1%} of the "
            f"questions with a guarantee; {curve.possible[at]:.1%} would have been possible"
        )
        return save(figure, form, label=label)


def draw_history(panels: Sequence[MetricHistory], form: Form) -> bytes:
    """Return every metric over time, with 95% intervals, and crosses where it had drifted.

    Raises:
        UserError: matplotlib is not installed.
    """
    n_rows = math.ceil(len(panels) / HISTORY_COLUMNS)
    with styled_figure(PAGE, 0.4 + 1.7 * n_rows, (n_rows, HISTORY_COLUMNS)) as (figure, axes):
        for panel, ax in zip_longest(panels, axes):
            if panel is None:
                ax.set_axis_off()
            else:
                _plot_history(panel, ax)
        return save(figure, form, label=describe_history(panels))


def _plot_history(panel: MetricHistory, ax: "Axes") -> None:
    days = [_days(date, panel) for date in panel.dates]
    below = [value - low for value, low in zip(panel.values, panel.lows, strict=True)]
    above = [high - value for value, high in zip(panel.values, panel.highs, strict=True)]
    few = len(days) < 30
    ax.errorbar(
        days,
        panel.values,
        yerr=[below, above],
        color=COLOURS[0],
        marker="o",
        markersize=4 if few else 2.5,
        elinewidth=0.8,
    )
    if any(not math.isnan(limit) for limit in panel.limits):
        ax.plot(
            days, panel.limits, color=OUTSIDE, linestyle="--", linewidth=1, drawstyle="steps-pre", label="tolerance"
        )
    drifted = [index for index, has_drifted in enumerate(panel.drifted) if has_drifted]
    if drifted:
        crosses = [days[index] for index in drifted], [panel.values[index] for index in drifted]
        ax.plot(*crosses, "X", color=OUTSIDE, markersize=7, linestyle="none", label="drifted")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", fontsize=6)
    ax.set_title(shortened(f"{panel.metric} ({panel.direction})", 56), fontsize=8, loc="left")
    marks = time_ticks(panel.dates[0], panel.dates[-1], HISTORY_TICKS)
    ax.set_xticks([_days(time, panel) for time, _ in marks], [label for _, label in marks])
    ax.grid(alpha=0.25)


def _days(date: datetime, panel: MetricHistory) -> float:
    return (date - panel.dates[0]).total_seconds() / 86400


def _error_bars(found: Any) -> list[list[float]] | None:
    if math.isnan(found.low):
        return None
    return [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]


def new_axes() -> "Axes":
    """Return axes of a new figure.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'lm-eval-calibration[report]'") from error
    axes: Axes = plt.figure(figsize=(5, 5), layout="constrained").add_subplot()
    return axes
