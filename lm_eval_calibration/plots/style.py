"""Figures drawn by matplotlib, as SVG that takes the page's colours or as PNG. Colours that the colour-blind can tell.

Needs the extra ``report``.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import quoteattr

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Literal["svg", "inline", "png"]
"""SVG as a file, SVG in a page (whose colour text and axes take), PNG."""

COLOURS = ("#0072b2", "#c65102", "#00845c", "#a8448a", "#8a6d00", "#1f86c4", "#6b6b6b")
"""After Okabe & Ito, dark enough for white paper and light enough for dark; used again from the first on."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_TEXT_COLOUR = "#010203"  # stands for the colour of the page's text until the figure is written

DPI = 200

_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT_COLOUR),
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
def styled_figure(
    width: float = 7.0, height: float = 4.4, panels: tuple[int, int] = (1, 1)
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure and its axes, row by row; draw and save within this context.

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
        raise UserError("figures need matplotlib: pip install 'lm-eval-calibration[report]'") from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(*panels, squeeze=False).flat)


def save(figure: "Figure", form: Form, *, label: str) -> bytes:
    """Return the figure as a file or as a part of a page.

    Args:
        figure: of :func:`styled_figure`.
        form: "svg" and "png" are dark on white.
        label: what a screen reader says instead of an SVG.
    """
    buffer = io.BytesIO()
    if form == "png":
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()
    inline = form == "inline"
    figure.savefig(buffer, format="svg", transparent=inline, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :].replace(_TEXT_COLOUR, "currentColor" if inline else "#1a1a1a")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{xml_text(label)}"', 1)
    return (svg if inline else f'<?xml version="1.0" encoding="utf-8"?>\n{svg}').encode()


def xml_text(text: str) -> str:
    """Return text for XML, in elements and attributes, with escapes for the characters that it can't hold."""
    return quoteattr(xml_characters(text), {'"': "&quot;"})[1:-1]


def xml_characters(text: str) -> str:
    """Return text with escapes for what has no sign, and for what XML 1.0 can't hold."""
    return "\n".join(map(visible, text.split("\n")))


def shortened(text: str, length: int = 40) -> str:
    """Return a name that is too long for a legend without its middle."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"
