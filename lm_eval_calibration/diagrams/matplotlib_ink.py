"""The diagrams drawn by matplotlib, which only this module imports."""

from typing import TYPE_CHECKING

from lm_eval_calibration.diagrams.reliability import Reliability
from lm_eval_calibration.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, OFF, BAND, LINE = "#0072b2", "#d55e00", "#bbbbbb", "#333333"
"""Of Okabe and Ito's palette, which people with any colour vision tell apart."""


def plot_reliability(data: Reliability, ax: "Axes | None" = None) -> "Axes":
    """Draw accuracy as bars, mean confidence as marks, and where calibration would put the bars."""
    if ax is None:
        ax = new_axes()
    for b in (b for b in data.bins if b.n_docs):
        middle, width = (b.low + b.high) / 2, b.high - b.low
        ax.bar(middle, b.accuracy, width * 0.9, color=OFF if b.is_off else RIGHT, hatch="///" if b.is_off else None)
        ax.bar(middle, b.band_high - b.band_low, width * 0.5, b.band_low, color=BAND, alpha=0.6, edgecolor=LINE)
        ax.plot([b.low, b.high], [b.confidence] * 2, color=LINE, linewidth=2)
    ax.plot([0, 1], [0, 1], color=LINE, linewidth=0.8, linestyle=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    ax.set_title(f"ECE {data.ece:.3f} of {data.n_docs:,} docs, {len(data.bins)} bins")
    return ax


def new_axes() -> "Axes":
    """Return axes of a new figure; raise UserError where matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UserError("diagrams need matplotlib: pip install 'lm-eval-calibration[report]'") from error
    axes: Axes = plt.figure(figsize=(5, 5), layout="constrained").add_subplot()
    return axes
