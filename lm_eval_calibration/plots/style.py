"""Figures drawn by matplotlib, as SVG that takes the page's colours or as PNG. Colours that the colour-blind can tell.

Needs the extra ``report``.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.escaping import xml_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#c65102", "#00845c", "#a8448a", "#8a6d00", "#1f86c4", "#6b6b6b")
"""After Okabe & Ito, dark enough for white paper and light enough for dark; used again from the first on."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_INK = "#010203"  # stands for the colour of the page's text until the picture is written

DPI = 200


_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "text.parse_math": False,  # a dollar in a model's name is a dollar
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lm-eval-calibration",
}


@contextmanager
def drawing(
    width: float = 7.0, height: float = 4.4, panels: tuple[int, int] = (1, 1)
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure and its axes, row by row; draw within this context.

    Args:
        width: in inches.
        height: in inches.
        panels: rows and columns of axes.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'lm-eval-calibration[report]'") from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(*panels, squeeze=False).flat)


def to_svg(figure: "Figure", *, label: str, inline: bool = False) -> str:
    """The figure as SVG.

    Args:
        figure: drawn in :func:`drawing`.
        label: what a screen reader says instead.
        inline: for a page: text and axes take the colour of the page's text; else they are dark on white.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=inline, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor" if inline else "#1a1a1a")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{xml_text(label)}"', 1)
    return svg if inline else f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def shortened(text: str, length: int = 40) -> str:
    """A name that is too long for a legend, without its middle."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"
