"""The table as LaTeX for a paper."""

import math
from collections.abc import Collection

from lm_eval_calibration.reports.compare.references import bibtex, cited
from lm_eval_calibration.reports.compare.table import Cell, Table
from lm_eval_calibration.reports.escaping import latex
from lm_eval_calibration.reports.names import task_name
from lm_eval_calibration.reports.numbers import p_equals
from lm_eval_calibration.results.columns import metric_of, short_title

ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$", None: r"$\to 0$"}

MARKED = {"best": r"\textbf{%s}", "tied": r"\underline{%s}", "": "%s"}


def latex_table(table: Table) -> str:
    """Return a table environment: booktabs, escaped names, citations; the BibTeX as comments above it."""
    columns = r"p{0.15\linewidth}" + "r" * (len(table.metrics) + 1)
    heads = [f"{latex(short_title(name))} {ARROWS[metric_of(name).higher_is_better]}" for name in table.metrics]
    lines = [
        "% Needs \\usepackage{booktabs}; if it is too wide, \\resizebox{\\linewidth}{!}{...}. References:",
        *(f"% {line}".rstrip() for line in bibtex(table.metrics).splitlines()),
        *(f"% note: {latex(note)}" for note in table.notes),
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{2pt}",
        rf"\caption{{{_caption(table)}}}",
        r"\label{tab:calibration}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["Model", "$N$", *heads]) + r" \\",
        r"\midrule",
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(table: Table) -> str:
    caption = latex(table.legend(best="Bold", tied="underlined"))
    if any(cell.is_apart for scope in table.scopes for row in scope.rows.values() for cell in row.values()):
        caption += r" $\times$: not comparable between these runs."
    return caption + rf" Metrics and tests: \cite{{{','.join(cited(table.metrics))}}}."


def _body(table: Table) -> list[str]:
    body = []
    for index, scope in enumerate(table.scopes):
        if len(table.scopes) > 1:
            body += [r"\midrule"] if index else []
            body += [rf"\multicolumn{{{len(table.metrics) + 2}}}{{l}}{{\emph{{{latex(task_name(scope.task))}}}}} \\"]
        bold = {
            name: {_value(row[name]) for row in scope.rows.values() if row[name].mark == "best"}
            for name in table.metrics
        }
        for label, row in scope.rows.items():
            cells = [rf"\raggedright {latex(label)}", str(scope.n_docs[label])]
            cells += [_cell(cell, bold[name]) for name, cell in row.items()]
            body.append(" & ".join(cells) + r" \\ \addlinespace[4pt]")
    return body


def _cell(cell: Cell, bold: Collection[str]) -> str:
    """Value on the row's baseline, interval and p below it; what reads as the best is bold, too."""
    if math.isnan(cell.value):
        return "--"
    value = _value(cell)
    mark = "best" if cell.mark == "tied" and value in bold else cell.mark
    lines = [MARKED[mark] % value + (r"$^{\times}$" if cell.is_apart else "")]
    if not math.isnan(cell.low):
        low, high = (f"{end:.3f}".replace("0.", ".", 1) for end in (cell.low, cell.high))
        lines.append(rf"{{\scriptsize [{low}, {high}]}}")
    if not math.isnan(cell.p_best):
        lines.append(rf"{{\scriptsize ${p_equals(cell.p_best)}$}}")
    return (
        lines[0]
        if len(lines) == 1
        else rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{(chr(92) * 2).join(lines)}\end{{tabular}}"
    )


def _value(cell: Cell) -> str:
    return f"{cell.value:.3f}"
