"""Rows as tables: for a terminal and other programs, in Markdown, as CSV."""

import csv
import io
import math
import re
import shutil
import sys
from collections.abc import Iterable, Sequence

from lm_eval_calibration.records.display import visible
from lm_eval_calibration.reports.escaping import csv_cell

_NUMBER = re.compile(r"[-+\[<]?\s*\d")


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns, those of numbers to the right.

    On a terminal they fit its width: columns that don't are left out, and a last line says which, and what shows them.
    Elsewhere (a pager, another program) no column is left out, and a tab stands between cells.
    """
    aligned = _aligned(heads, list(rows))
    if not sys.stdout.isatty():
        return ["\t".join(line).rstrip(" ") for line in zip(*aligned, strict=True)]
    width = shutil.get_terminal_size().columns
    n = len(aligned)
    while n > 1 and _width(aligned[:n]) > width:
        n -= 1
    lines = ["  ".join(line).rstrip() for line in zip(*aligned[:n], strict=True)]
    if n < len(aligned):
        hidden = ", ".join(head.strip() for head in heads[n:] if head.strip())
        lines.append(f"(not shown: {hidden}; a terminal of {_width(aligned)} columns or `| less -S` shows all)")
    return lines


def fits_terminal(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Return whether a table loses no column where it is shown."""
    width = _width(_aligned(heads, list(rows)))
    return not sys.stdout.isatty() or width <= shutil.get_terminal_size().columns


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return columns whose cells, the head among them, are of one width."""
    columns = []
    rows = [[visible(cell) for cell in row] for row in rows]
    for head, *cells in zip(heads, *rows, strict=True):
        width = max(map(len, (head, *cells)))
        to_the_right = bool(cells) and all(_NUMBER.match(cell) for cell in cells)
        columns.append([cell.rjust(width) if to_the_right else cell.ljust(width) for cell in (head, *cells)])
    return columns


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(len(column[0]) + 2 for column in columns) - 2


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]], rules: Sequence[str] = ()) -> list[str]:
    """Return the lines of a Markdown table; the caller has escaped what comes from data.

    Args:
        heads: of the columns.
        rows: cells.
        rules: how each column is aligned, as ``---:``; ``---`` where not given.
    """
    return [f"| {' | '.join(cells)} |" for cells in (heads, rules or ["---"] * len(heads), *rows)]


def csv_table(heads: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    """Return CSV: numbers in full, undefined ones empty, text that no spreadsheet takes for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _csv_cell(cell: str | int | float) -> str | int:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else repr(float(cell))
    return csv_cell(cell) if isinstance(cell, str) else cell
