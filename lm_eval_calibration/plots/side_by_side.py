"""Several models on the same axes, drawn by matplotlib."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lm_eval_calibration.plots.drawing import FEW, LINE, in_percent, series, unit_axes
from lm_eval_calibration.plots.reliability import Reliability
from lm_eval_calibration.plots.smooth import Smooth
from lm_eval_calibration.plots.style import (
    ACCURACY,
    COLOURS,
    COLUMN,
    CONFIDENCE,
    DASHES,
    Form,
    save,
    shortened,
    styled_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_side_by_side(
    curves: Mapping[str, Smooth],
    bins: Mapping[str, Reliability],
    differences: Mapping[str, Smooth],
    title: str,
    form: Form,
) -> bytes:
    """Return reliability curves of several models on the same axes, and below how they differ from the first's.

    Args:
        curves: of each model, by name.
        bins: of each model.
        differences: accuracy of other models at each confidence less that of the first, by their names.
        title: of the figure.
        form: of the file.

    Raises:
        UserError: matplotlib is not installed.
    """
    height = 4.2 + 0.16 * len(curves)
    with styled_figure(COLUMN, height, (2, 1), ratios=(3, 1.3)) as (figure, (above, below)):
        unit_axes(above)
        for index, (name, curve) in enumerate(curves.items()):
            _plot_smooth(above, curve, bins[name], name, index)
        above.set_title(shortened(title, 60))
        for index, curve in enumerate(differences.values(), start=1):
            _band(below, curve, index)
        below.axhline(0, color=LINE, linewidth=0.8, linestyle=":")
        below.set(xlim=(0, 1), xlabel=CONFIDENCE, ylabel=f"difference of\n{ACCURACY}, points")
        in_percent(below.xaxis)
        below.yaxis.set_major_formatter(lambda share, _: f"{100 * share:+.3g}" if share else "0")
        figure.legend(loc="outside lower left", handlelength=3)
        first = next(iter(curves))
        label = f"Reliability of {', '.join(curves)}; below: {ACCURACY} at each confidence less that of {first}"
        return save(figure, form, label=label)


def _plot_smooth(ax: "Axes", curve: Smooth, data: Reliability, name: str, index: int) -> None:
    """Draw a smooth reliability curve with its band, and the bins of ten docs and more as marks."""
    _band(ax, curve, index)
    bins = [b for b in data.bins if b.n_docs >= FEW]
    style = {**series(index), "markersize": 4}
    ax.plot([b.confidence for b in bins], [b.accuracy for b in bins], linestyle="none", **style)
    ax.plot([], [], **style, linestyle=_dash(index), label=f"{shortened(name, 34)} (ECE {data.ece:.3f})")


def _band(ax: "Axes", curve: Smooth, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    ax.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    ax.plot(curve.at, curve.value, color=colour, linestyle=_dash(index), linewidth=1.5)


def _dash(index: int) -> Any:
    """The dashes of a series, as pages have them."""
    dash = DASHES[index % len(DASHES)]
    return "-" if dash == "none" else (0, [float(part) / 2 for part in dash.split()])
