"""The diagrams drawn by matplotlib."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots import style as ink
from lm_eval_calibration.plots.reliability import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, OFF = ink.COLOURS[:2]
BAND, LINE = "#bbbbbb", "#333333"


def plot_reliability(data: Reliability, ax: "Axes | None" = None) -> "Axes":
    """Draw accuracy as bars, mean confidence as marks, and where calibration would put the bars.

    Raises:
        UserError: no axes are given and matplotlib is not installed.
    """
    if ax is None:
        ax = _new_axes()
    for b in (b for b in data.bins if b.n_docs):
        middle, width = (b.low + b.high) / 2, b.high - b.low
        ax.bar(middle, b.accuracy, width * 0.9, color=OFF if b.is_off else RIGHT, hatch="///" if b.is_off else None)
        ax.bar(middle, b.band_high - b.band_low, width * 0.5, b.band_low, color=BAND, alpha=0.6, edgecolor=LINE)
        ax.plot([b.low, b.high], [b.confidence] * 2, color=LINE, linewidth=2)
    ax.plot([0, 1], [0, 1], color=LINE, linewidth=0.8, linestyle=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    ax.set_title(f"ECE {data.ece:.3f} of {data.n_docs:,} docs, {len(data.bins)} bins")
    return ax


def draw_reliability(diagrams: Sequence[tuple[str, Reliability]], title: str, suffix: str) -> bytes:
    """Return several diagrams beside each other.

    Args:
        diagrams: title and content of each.
        title: of them all.
        suffix: "svg" or "png".

    Raises:
        UserError: matplotlib is not installed.
    """
    n_columns = min(3, len(diagrams))
    n_rows = math.ceil(len(diagrams) / n_columns)
    with ink.drawing(4.2 * n_columns, 4.2 * n_rows + 0.5, (n_rows, n_columns)) as (figure, panels):
        for ax, (name, data) in zip(panels, diagrams, strict=False):
            plot_reliability(data, ax)
            ax.set_title(f"{ink.shortened(name)}\n{ax.get_title()}", fontsize=9)
        for ax in panels[len(diagrams) :]:
            ax.set_axis_off()
        figure.suptitle(ink.shortened(title, 80))
        return ink.to_png(figure) if suffix == "png" else ink.to_svg(figure, label=title).encode("utf-8")


def _new_axes() -> "Axes":
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UserError("diagrams need matplotlib: pip install 'lm-eval-calibration[report]'") from error
    axes: Axes = plt.figure(figsize=(5, 5), layout="constrained").add_subplot()
    return axes
