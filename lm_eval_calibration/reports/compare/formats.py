"""The table for people, papers and programs."""

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval_calibration.reports.compare.picture import ACCURACY, ERROR, draw_trade_off
from lm_eval_calibration.reports.compare.references import bibtex, cited
from lm_eval_calibration.reports.compare.table import Cell, Scope, Table
from lm_eval_calibration.reports.escaping import csv_cell, latex, markdown
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.results.differences import METRICS

TEMPLATE = Path(__file__).with_name("compare.html")

TITLES = {
    "acc": "Acc.",
    "brier_score": "Brier",
    "brier_top_label": "Brier (top label)",
    "ece": "ECE",
    "ace": "ACE",
    "full_ece": "Full-ECE",
    "auroc": "AUROC",
    "nll": "NLL",
    "ece_debiased": "ECE (debiased)",
}
"""Names for print; others stand as they are."""

ARROWS = {True: "↑", False: "↓", None: "→0"}

MARKS = {"best": "*", "tied": "≈", "": ""}


def text(table: Table) -> str:
    """Tables for a terminal; columns separated by tabs for other programs."""
    lines = []
    for scope in table.scopes:
        lines.append(f"# {scope.task}")
        lines += _aligned([["model", "docs", *(f"{n} {ARROWS[_way(n)]}" for n in table.metrics)], *_text_rows(scope)])
    return "\n".join([*lines, "", legend(table), *(f"note: {note}" for note in table.notes)]) + "\n"


def md(table: Table) -> str:
    """Markdown tables, with BibTeX."""
    lines = []
    for scope in table.scopes:
        heads = ["model", "docs", *(f"{TITLES.get(n, n)} {ARROWS[_way(n)]}" for n in table.metrics)]
        lines += [f"### {markdown(scope.task)}", "", _md_row(map(markdown, heads)), _md_row(["---"] * len(heads))]
        for label, row in scope.rows.items():
            lines.append(_md_row([markdown(label), str(scope.n_docs[label]), *map(_md_cell, row.values())]))
        lines.append("")
    lines += [markdown(legend(table)), "", *(f"- {markdown(note)}" for note in table.notes)]
    return "\n".join([*lines, "", "```bibtex", bibtex(table.metrics).rstrip(), "```"]) + "\n"


def latex_table(table: Table) -> str:
    """A table environment for a paper: booktabs, escaped names, citations; the BibTeX as comments above it."""
    columns = r"p{0.15\linewidth}" + "r" * (len(table.metrics) + 1)
    arrows = {True: r"$\uparrow$", False: r"$\downarrow$", None: r"$\to 0$"}
    heads = ["Model", "$N$", *(f"{latex(TITLES.get(n, n))} {arrows[_way(n)]}" for n in table.metrics)]
    body = []
    for index, scope in enumerate(table.scopes):
        if len(table.scopes) > 1:
            body += [r"\midrule"] if index else []
            body += [rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{latex(scope.task)}}}}} \\"]
        for label, row in scope.rows.items():
            body.append(
                " & ".join([rf"\raggedright {latex(label)}", str(scope.n_docs[label]), *map(_latex_cell, row.values())])
                + r" \\"
            )
    caption = latex(legend(table, best="Bold"))
    if any(
        cell.reason and not cell.mark for scope in table.scopes for row in scope.rows.values() for cell in row.values()
    ):
        caption += r" $\times$: not comparable between these runs."
    caption += rf" Metrics and tests: \cite{{{','.join(cited(table.metrics))}}}."
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}; if it is too wide, \\resizebox{\\linewidth}{!}{...}. References:",
            *(f"% {line}".rstrip() for line in bibtex(table.metrics).splitlines()),
            *(f"% note: {latex(note)}" for note in table.notes),
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{2pt}",
            rf"\caption{{{caption}}}",
            r"\label{tab:calibration}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def csv_table(table: Table) -> str:
    """One line for each task, run and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["task", "model", "metric", "value", "low", "high", "mark", "docs", "n_bins", "note"])
    for scope in table.scopes:
        for label, row in scope.rows.items():
            for name, cell in row.items():
                numbers = ["" if math.isnan(x) else repr(x) for x in (cell.value, cell.low, cell.high)]
                docs = [cell.mark, scope.n_docs[label], table.n_bins, csv_cell(cell.reason)]
                writer.writerow([csv_cell(scope.task), csv_cell(label), name, *numbers, *docs])
    return buffer.getvalue()


def json_table(table: Table) -> str:
    """Values, intervals, marks and every test; undefined numbers are null."""
    data = {
        "runs": list(table.labels),
        "metrics": list(table.metrics),
        "n_bins": table.n_bins,
        "legend": legend(table),
        "n_tests": table.n_tests,
        "notes": list(table.notes),
        "tasks": [
            {
                "task": scope.task,
                "runs": {
                    label: {"n_docs": scope.n_docs[label], **{name: _plain(cell) for name, cell in row.items()}}
                    for label, row in scope.rows.items()
                },
            }
            for scope in table.scopes
        ],
        "pairs": [_plain(pair) for pair in table.pairs],
        "bibtex": bibtex(table.metrics),
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def html_page(table: Table) -> str:
    """A page with the picture of the first table."""
    from markupsafe import Markup

    has_picture = {ACCURACY, ERROR} <= set(table.metrics)
    picture = Markup(str(draw_trade_off(table.scopes[0], "inline"))) if has_picture else ""
    return render_page(
        TEMPLATE,
        title=f"{len(table.labels)} runs compared",
        table=table,
        picture=picture,
        legend=legend(table, best="Bold"),
        bibtex=bibtex(table.metrics),
        heads={name: f"{TITLES.get(name, name)} {ARROWS[_way(name)]}" for name in table.metrics},
        isnan=math.isnan,
    )


FORMATS: dict[str, Callable[[Table], str | bytes]] = {
    "table": text,
    "md": md,
    "latex": latex_table,
    "bibtex": lambda table: bibtex(table.metrics),
    "csv": csv_table,
    "json": json_table,
    "html": html_page,
    "svg": lambda table: draw_trade_off(table.scopes[0], "svg"),
    "png": lambda table: draw_trade_off(table.scopes[0], "png"),
}
"""Functions by the name of their format."""

SUFFIXES = {".tex": "latex", ".bib": "bibtex", ".txt": "table"} | {f".{name}": name for name in FORMATS}
"""Format by the suffix of the output file."""


def legend(table: Table, best: str = "*") -> str:
    """Say what intervals and marks mean."""
    tied = {"*": "≈", "Bold": "underlined"}[best]
    return (
        f"95% intervals in brackets, {table.n_bins} bins. {best}: best; {tied}: not shown to be worse than the best at "
        f"5%, after Holm's procedure over all {table.n_tests} tests (pairs of runs, metrics, tasks)."
    )


def _way(name: str) -> bool | None:
    return METRICS[name].higher_is_better


def _text_rows(scope: Scope) -> list[list[str]]:
    return [
        [label, str(scope.n_docs[label]), *(f"{_between(cell)}{MARKS[cell.mark]}" for cell in row.values())]
        for label, row in scope.rows.items()
    ]


def _between(cell: Cell) -> str:
    if math.isnan(cell.value):
        return "undefined"
    interval = "" if math.isnan(cell.low) else f" [{cell.low:.3f}, {cell.high:.3f}]"
    return f"{cell.value:.4f}{interval}" + (" (not comparable)" if cell.reason and not cell.mark else "")


def _md_cell(cell: Cell) -> str:
    if math.isnan(cell.value):
        return "undefined"
    value = f"**{cell.value:.4f}**" if cell.mark == "best" else f"{cell.value:.4f}" + MARKS[cell.mark]
    return value + markdown(_between(cell)[len(f"{cell.value:.4f}") :])


def _md_row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_cell(cell: Cell) -> str:
    if math.isnan(cell.value):
        return "--"
    value = {"best": r"\textbf{%.3f}", "tied": r"\underline{%.3f}", "": "%.3f"}[cell.mark] % cell.value
    if cell.reason and not cell.mark:
        value += r"$^{\times}$"
    if math.isnan(cell.low):
        return value
    low, high = (f"{end:.3f}".replace("0.", ".", 1) for end in (cell.low, cell.high))
    return rf"\shortstack[r]{{{value}\\{{\scriptsize [{low}, {high}]}}}}"


def _aligned(rows: list[list[str]]) -> list[str]:
    if not sys.stdout.isatty():
        return ["\t".join(row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _plain(item: Any) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in item._asdict().items()
    }
