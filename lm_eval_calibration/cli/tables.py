"""Tables of the command: aligned on a terminal, tab-separated for other programs."""

import sys
from collections.abc import Sequence

import typer


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], n_plain_columns: int) -> None:
    """Print a table on a terminal; elsewhere its first ``n_plain_columns`` columns, tab-separated, without heads."""
    if not sys.stdout.isatty():
        typer.echo("\n".join("\t".join(row[:n_plain_columns]) for row in rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
