"""Rows as tables: for a terminal and other programs, in Markdown, as CSV."""

import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence

from lm_eval_calibration.reports.escaping import csv_cell

_NUMBER = re.compile(r"[-+\[<]?\s*\d")


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns on a terminal, columns of numbers to the right; else separated by tabs."""
    body = list(rows)
    lines = [heads, *body]
    if not sys.stdout.isatty():
        return ["\t".join(line) for line in lines]
    aligned = []
    for head, *cells in zip(*lines, strict=True):
        width = max(map(len, (head, *cells)))
        to_the_right = bool(cells) and all(_NUMBER.match(cell) for cell in cells)
        aligned.append([cell.rjust(width) if to_the_right else cell.ljust(width) for cell in (head, *cells)])
    return ["  ".join(line).rstrip() for line in zip(*aligned, strict=True)]


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
