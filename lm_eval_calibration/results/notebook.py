"""A run as a notebook shows it."""

import html
import math
from collections.abc import Iterable, Mapping

from lm_eval_calibration.results.columns import arrow, columns, title
from lm_eval_calibration.results.differences import POOLED
from lm_eval_calibration.results.measured import Measured


def notebook_table(caption: str, scopes: Iterable[tuple[str, int, Mapping[str, Measured]]]) -> str:
    """Return metrics with their intervals as HTML.

    Args:
        caption: of the table.
        scopes: name, number of docs, and the metrics that a notebook shows, of each row.
    """
    heads = ("", "docs", *(f"{title(name)} {arrow(name)}" for name in columns("notebook")))
    rows = []
    for scope, n_docs, found in scopes:
        cells = "".join(f"<td>{_cell(found[name])}</td>" for name in columns("notebook"))
        name = html.escape("all tasks" if scope == POOLED else scope)
        rows.append(f"<tr><th>{name}</th><td>{n_docs:,}</td>{cells}</tr>")
    caption = f"<caption>{html.escape(caption)}; 95% intervals in brackets</caption>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(found: Measured) -> str:
    """Value and interval, on one line; of what is undefined the reason as a hint."""
    if math.isnan(found.value):
        return f'<span title="{html.escape(found.reason or "")}">undefined</span>'
    between = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    return f'<span style="white-space: nowrap">{found.value:.4f}{between}</span>'
