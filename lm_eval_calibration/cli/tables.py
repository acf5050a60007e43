"""Tables of the command: aligned, and of names alone where another program reads them."""

import sys
from collections.abc import Sequence

import typer


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], n_plain_columns: int) -> None:
    """Print a table on a terminal; elsewhere its first columns without heads, a tab between cells."""
    if sys.stdout.isatty():
        from lm_eval_calibration.reports.tables import plain_table

        typer.echo("\n".join(plain_table(heads, rows)))
    else:
        typer.echo("\n".join("\t".join(row[:n_plain_columns]) for row in rows))
