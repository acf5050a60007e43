"""Figures drawn by matplotlib as SVG, PNG or PDF. Colours that the colour-blind can tell.

Needs the extra ``report``.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import quoteattr

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Literal["svg", "png", "pdf"]

COLOURS = ("#0067a3", "#c65102", "#873cff", "#967878", "#1e0000", "#0f0078", "#691e00")
DARK_COLOURS = ("#4fb0ea", "#ff9d5c", "#872dff", "#ffe1d2", "#d2005a", "#b4ff0f", "#c32d96")
"""Of series on white and on dark paper: every two of a palette are told apart with protanopia, deuteranopia and
tritanopia too, and each stands out from its paper by 3 : 1 (computed in ``tests/plots``)."""

DASHES = ("none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2")
"""Of the lines of series, in the units of a page's diagrams."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

CONFIDENCE, ACCURACY, ECE = "confidence", "accuracy", "expected calibration error (ECE)"
COVERAGE, RISK = "questions answered, the surest first", "wrong answers"
"""Names of axes, of every diagram on pages and in files."""

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches: of a column of a paper with two, and of both."""

DPI = 300

_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), "#1a1a1a"),
    "text.parse_math": False,  # a dollar in a model's name is a dollar
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "lm-eval-calibration",
}


@contextmanager
def styled_figure(
    width: float, height: float, panels: tuple[int, int] = (1, 1), ratios: Sequence[float] | None = None
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """A figure and its axes, row by row; draw and save within this context.

    Args:
        width: in inches.
        height: in inches.
        panels: rows and columns of axes.
        ratios: heights of the rows; equal where not given.

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
        yield figure, list(figure.subplots(*panels, squeeze=False, height_ratios=ratios).flat)


def save(figure: "Figure", form: Form, *, label: str) -> bytes:
    """Return the figure as a file.

    Args:
        figure: of :func:`styled_figure`.
        form: of the file.
        label: what a screen reader says instead of an SVG.
    """
    buffer = io.BytesIO()
    if form == "png":
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()
    if form == "pdf":
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
        return buffer.getvalue()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode().partition("<svg")[2]
    return f'<?xml version="1.0" encoding="utf-8"?>\n<svg role="img" aria-label="{xml_text(label)}"{svg}'.encode()


def xml_text(text: str) -> str:
    """Return text for XML, in elements and attributes, with escapes for the characters that it can't hold."""
    return quoteattr(xml_characters(text), {'"': "&quot;"})[1:-1]


def xml_characters(text: str) -> str:
    """Return text with escapes for what has no sign, and for what XML 1.0 can't hold."""
    return "\n".join(map(visible, text.split("\n")))


def wrapped(text: str, length: int = 36) -> str:
    """Return a title in lines, two at most, so that names which begin alike can be told apart."""
    import textwrap

    lines = textwrap.wrap(shortened(text, 2 * length), length)
    return "\n".join(lines[:2])


def shortened(text: str, length: int = 40) -> str:
    """Return a name that is too long for a legend without its middle."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"
