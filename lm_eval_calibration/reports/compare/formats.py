"""The table for people, papers and programs."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.drawing import draw_trade_off
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.plots.trade_off import TradeOffPoint, prepare_trade_off, ticks
from lm_eval_calibration.records.display import visible
from lm_eval_calibration.reports.compare.references import bibtex
from lm_eval_calibration.reports.compare.sentences import BIAS
from lm_eval_calibration.reports.compare.side_by_side import MOST_CURVES, SideBySide
from lm_eval_calibration.reports.compare.table import Cell, Scope, Table
from lm_eval_calibration.reports.compare.tex import latex_table
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.formats import pictures
from lm_eval_calibration.reports.names import shown, task_name
from lm_eval_calibration.reports.numbers import estimate, json_text, number, p_equals
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.reports.tables import csv_table, fits_terminal, markdown_table, plain_table
from lm_eval_calibration.results.columns import arrow, short_title

TEMPLATE = Path(__file__).with_name("compare.html")

ACCURACY, ERROR = "acc", "ece"
"""Metrics of the picture's axes."""

SHOWN = 20
"""Runs that a terminal shows of many."""

MARKS = {"best": "*", "tied": "≈", "": ""}


def text(table: Table) -> str:
    """Tables for a terminal, which they fit; elsewhere with all their columns."""
    lines = []
    for scope in table.scopes:
        heads = ["model", "docs", *(f"{name} {arrow(name)}" for name in table.metrics)]
        top = list(_rows(scope))[: SHOWN if table.is_against_best else None]
        rows = [[*row, *(_plain_cell(cell) for cell in cells)] for row, cells in top]
        lines.append(visible(f"# {shown(scope.task)}"))
        if fits_terminal(heads, rows):
            lines += plain_table(heads, rows)
        else:
            lines += plain_table(heads, [[*row, *map(_value, cells)] for row, cells in top])
            lines.append(
                "(without intervals and p, for which this terminal is too narrow: `| less -S` or --format md has them)"
            )
        if len(top) < len(scope.rows):
            rest = f"the best {len(top)} of {len(scope.rows)} runs by {table.metrics[0]}"
            lines.append(f"({rest}: --output with .html to search all, .csv, .json, .md or .tex for all)")
    return "\n".join([*lines, "", table.legend(), *(visible(f"note: {note}") for note in table.notes)]) + "\n"


def md(table: Table) -> str:
    """Markdown tables, with BibTeX."""
    lines = []
    heads = ["model", "docs", *(f"{markdown(short_title(n))} {arrow(n)}" for n in table.metrics)]
    for scope in table.scopes:
        rows = ([*map(markdown, row), *map(_markdown_cell, cells)] for row, cells in _rows(scope))
        lines += [f"### {markdown(task_name(scope.task))}", "", *markdown_table(heads, rows), ""]
    lines += [markdown(table.legend(best="Bold", tied="≈")), "", *(f"- {markdown(note)}" for note in table.notes)]
    return "\n".join([*lines, "", "```bibtex", bibtex(table.metrics).rstrip(), "```"]) + "\n"


def csv(table: Table) -> str:
    """One line for each task, run and metric."""
    heads = ["task", "model", "metric", "value", "low", "high", "mark", "p_best", "docs", "n_bins", "note"]
    rows = (
        (
            shown(scope.task),
            label,
            name,
            *cell[:3],
            cell.mark,
            cell.p_best,
            scope.n_docs[label],
            table.n_bins,
            cell.reason,
        )
        for scope in table.scopes
        for label, row in scope.rows.items()
        for name, cell in row.items()
    )
    return csv_table(heads, rows)


def as_data(table: Table) -> dict[str, Any]:
    """Return values, intervals, marks and every test."""
    return {
        "runs": table.labels,
        "metrics": table.metrics,
        "n_bins": table.n_bins,
        "legend": table.legend(),
        "n_tests": table.n_tests,
        "notes": table.notes,
        "tasks": [
            {
                "task": shown(scope.task),
                "runs": {label: {**_counts(scope, label), **row} for label, row in scope.rows.items()},
            }
            for scope in table.scopes
        ],
        "pairs": [pair._replace(task=shown(pair.task)) for pair in table.pairs],
        "bibtex": bibtex(table.metrics),
    }


def _counts(scope: Scope, label: str) -> dict[str, int]:
    n_clusters = {"n_clusters": scope.n_clusters[label]} if label in scope.n_clusters else {}
    return {"n_docs": scope.n_docs[label], **n_clusters}


def html(table: Table, beside: SideBySide | None = None) -> str:
    """A page: curves on the same axes, accuracy against calibration error, tables, docs that changed sides.

    Args:
        table: of the runs.
        beside: what is shown beside it.
    """
    points = _trade_off(table) if {ACCURACY, ERROR} <= set(table.metrics) else []
    return render_page(
        TEMPLATE,
        title=f"{len(table.labels)} runs compared",
        table=table,
        beside=beside,
        bias=BIAS,
        most_curves=MOST_CURVES,
        reach=_reach(beside) if beside else 1,
        points=points,
        x=_ticks([point.accuracy for point in points]),
        y=_ticks([point.error for point in points]),
        n_front=sum(point.on_front for point in points),
        legend=table.legend(best="Bold", tied="underlined"),
        bibtex=bibtex(table.metrics),
        heads=[f"{short_title(name)} {arrow(name)}" for name in table.metrics],
    )


def _ticks(found: Sequence[Any]) -> list[float]:
    return ticks([end for one in found for end in (one.value, one.low, one.high) if not math.isnan(end)] or [0, 1])


def _reach(beside: SideBySide) -> float:
    """How far the axis of differences goes to either side, in tenths."""
    ends = [abs(end) for v in beside.versus for end in (*v.difference.low, *v.difference.high)]
    return min(1, max(1, math.ceil(10 * max(ends, default=0))) / 10)


def picture(table: Table, form: Form) -> bytes:
    """Accuracy against calibration error, on the docs of the first table.

    Raises:
        UserError: the table has not both of them.
    """
    for name in (ACCURACY, ERROR):
        if name not in table.metrics:
            raise UserError(f"the picture shows {ACCURACY} against {ERROR}: {name} is not among the metrics")
    return draw_trade_off(_trade_off(table), form)


def _trade_off(table: Table) -> list[TradeOffPoint]:
    return prepare_trade_off({label: (row[ACCURACY], row[ERROR]) for label, row in table.scopes[0].rows.items()})


FORMATS: dict[str, Callable[[Table], str | bytes]] = {
    "table": text,
    "md": md,
    "latex": latex_table,
    "bibtex": lambda table: bibtex(table.metrics),
    "csv": csv,
    "json": lambda table: json_text(as_data(table)),
    "html": html,
    **pictures(picture),
}
"""Functions by the name of their format."""

SUFFIXES = {"tex": "latex", "bib": "bibtex", "txt": "table"}
"""Formats by suffixes of the output file that are not their names."""


def _rows(scope: Scope) -> Iterator[tuple[list[str], Sequence[Cell]]]:
    for label, row in scope.rows.items():
        yield [label, str(scope.n_docs[label])], list(row.values())


def _value(cell: Cell) -> str:
    return number(cell.value, undefined="undefined") + MARKS[cell.mark]


def _plain_cell(cell: Cell) -> str:
    return " ".join(
        filter(None, (estimate(cell, 4, 3) + _not_comparable(cell) + MARKS[cell.mark], p_equals(cell.p_best)))
    )


def _markdown_cell(cell: Cell) -> str:
    if math.isnan(cell.value):
        return "undefined"
    value = number(cell.value)
    marked = f"**{value}**" if cell.mark == "best" else value + MARKS[cell.mark]
    rest = estimate(cell, 4, 3).removeprefix(value) + _not_comparable(cell)
    return marked + markdown(" ".join(filter(None, (rest, p_equals(cell.p_best)))))


def _not_comparable(cell: Cell) -> str:
    return " (not comparable)" if cell.is_apart and not math.isnan(cell.value) else ""
