"""A report of several runs: the table of ``compare``, curves on the same axes, sentences, docs that changed sides."""

import warnings
from collections.abc import Callable

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.side_by_side import draw_side_by_side
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.compare import formats
from lm_eval_calibration.reports.compare.sentences import BIAS
from lm_eval_calibration.reports.compare.side_by_side import MOST_CURVES, SideBySide, side_by_side
from lm_eval_calibration.reports.compare.table import Table, default_metrics, make_table
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.formats import pictures
from lm_eval_calibration.reports.names import task_name
from lm_eval_calibration.reports.numbers import json_text
from lm_eval_calibration.results import Run


def md(table: Table, beside: SideBySide) -> str:
    """The sentences, then the tables."""
    lines = ["## Results, as sentences", "", *(f"- {markdown(sentence)}" for sentence in beside.sentences), ""]
    lines += [markdown(BIAS), ""] if beside.sentences else []
    for versus in beside.versus:
        found = versus.changed
        text = f"Of {counted(found.n_both)} that both have, {versus.a} alone answers {found.n_lost} right"
        lines += [markdown(f"{text} and {versus.b} alone {found.n_won}."), ""]
    return "\n".join(lines) + "\n" + formats.md(table)


def json(table: Table, beside: SideBySide) -> str:
    """What ``compare`` gives as JSON, with curves, sentences and docs that changed sides."""
    data = {
        "sentences": beside.sentences,
        "curves": beside.curves,
        "differences": [
            {"a": v.a, "b": v.b, "paired": v.paired, "curve": v.difference, "changed": v.changed} for v in beside.versus
        ],
    }
    return json_text(formats.as_data(table) | data)


def picture(table: Table, beside: SideBySide, form: Form) -> bytes:
    """Reliability curves on the same axes.

    Raises:
        UserError: too many runs for one diagram, or no confidences.
    """
    if not beside.curves:
        raise UserError(f"curves are drawn of up to {MOST_CURVES} runs that all have confidences; try `compare`")
    differences = {v.b: v.difference for v in beside.versus}
    return draw_side_by_side(beside.curves, beside.bins, differences, f"Reliability: {task_name(beside.scope)}", form)


FORMATS: dict[str, Callable[[Table, SideBySide], str | bytes]] = {
    "html": formats.html,
    "md": md,
    "json": json,
    **pictures(picture),
}
"""Functions by the name of their format."""


def together(runs: dict[str, Run], form: str, *, redact: bool) -> str | bytes:
    """Return the report of several runs, by label; ``redact``: without texts of docs.

    Raises:
        UserError: they can't be compared.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is undefined says so in its cell
        table = make_table(runs, default_metrics(list(runs.values())))
        return FORMATS[form](table, side_by_side(runs, table, redact=redact))
