"""Text that comes from data (names of models, tasks and files) as text in other languages, never as their code.

HTML is escaped by the templates themselves (:func:`~lm_eval_calibration.reports.page.render_page`), XML by
:func:`~lm_eval_calibration.plots.style.xml_text`.
"""

import re

from lm_eval_calibration.records.display import visible

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
}

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def latex(text: str) -> str:
    """Return text for LaTeX; what pdfLaTeX has no sign for is named by its number, as U+4E2D."""
    return "".join(_LATEX.get(char) or _latex_char(char) for char in _one_line(text))


def markdown(text: str) -> str:
    """Return text for a Markdown paragraph or table cell."""
    plain = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", plain)


def csv_cell(text: str) -> str:
    """Return text for a CSV cell, after a ' where a spreadsheet would take it for a formula."""
    shown = "\n".join(map(visible, text.split("\n")))  # quoted, lines of a cell are no rows
    return f"'{shown}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else shown


def _one_line(text: str) -> str:
    return visible(" ".join(text.split("\n")))


def _latex_char(char: str) -> str:
    return char if char <= "~" or "\u00a1" <= char <= "\u00ff" else f"U+{ord(char):04X}"
