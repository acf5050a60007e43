"""``lm-eval-calibration confidences``: read the runs, make the tables, print, draw or write them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.plots import prepare_reliability
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.records import n_clusters
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.confidences.table import Row, Table, make_tables
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.formats import choose_format, pictures, print_or_write
from lm_eval_calibration.reports.names import shown, task_name
from lm_eval_calibration.reports.numbers import estimate, interval, json_text, p_equals, signed
from lm_eval_calibration.reports.runs import by_name, common_tasks, meant, name_and_path, print_notes
from lm_eval_calibration.reports.sentences import BINNED_INTERVALS
from lm_eval_calibration.reports.tables import markdown_table
from lm_eval_calibration.results import Selection, load_run
from lm_eval_calibration.results.columns import arrow, columns, title


def confidences(
    results: Sequence[str],
    *,
    select: Selection,
    tasks: Sequence[str],
    n_bins: int | None,
    cluster: str | None,
    form: str | None,
    output: Path | None,
) -> None:
    """Print or write how well each kind of confidence does; the arguments are the command's.

    Raises:
        UserError: a run can't be read, no task in common, an unknown format.
    """
    form = choose_format(form, output, FORMATS, default="md")
    given = list(map(name_and_path, results))
    runs = by_name(
        [name or path.resolve().name for name, path in given],
        [load_run(path, cluster=cluster, select=select) for _, path in given],
    )
    print_notes(*runs.values())
    common = common_tasks(runs)
    common = meant(tasks, common) or common
    bins = n_bins or next(iter(runs.values())).n_bins
    content = FORMATS[form](make_tables(runs, common, bins), bins)
    told = f"{counted(len(runs), what='runs')}, {counted(len(common), what='tasks')}"
    print_or_write(content, output, told)


def md(tables: Sequence[Table], n_bins: int) -> str:
    """Markdown tables: each kind of confidence by metrics, then what changes on the same docs."""
    lines = []
    for table in tables:
        lines += [f"### {markdown(task_name(table.task))}", "", *_values(table), "", *_changes(table), ""]
    n_tests = sum(not math.isnan(p) for table in tables for change in table.changes for p in change.p_adjusted.values())
    holm = f"Holm's procedure over {counted(n_tests, what='tests')}"
    of_changes = f" p and words of changes are after {holm}." if n_tests else ""
    lines.append(
        f"95% intervals in brackets, each of its number alone, {n_bins} bins. Temperatures are cross-fitted over docs. "
        "Changes are estimates for all such docs: of ECE without its bias, so they need not be the difference of two "
        f"values.{of_changes} {BINNED_INTERVALS}"
    )
    return "\n".join(lines) + "\n"


def _values(table: Table) -> list[str]:
    rows = []
    for row in table.rows:
        without = f" ({row.answers.n_without} without)" if row.answers.n_without else ""
        estimates = (estimate(row.measured[name]) for name in columns("confidences"))
        rows.append([markdown(row.answers.name), f"{_docs(row)}{without}", *estimates])
    return _table("confidence", "confidences", rows)


def _docs(row: Row) -> str:
    """Number of docs, and of their clusters."""
    n = n_clusters(row.answers.clusters)
    return f"{len(row.answers.docs)}" + ("" if n is None else f" of {n} clusters")


def _changes(table: Table) -> list[str]:
    if not table.changes:
        return []
    rows = []
    for change in table.changes:
        cells = []
        for name, c in change.found.items():
            difference = f"{signed(c.difference)} {interval(c.low, c.high, '+.4f')}"
            cells.append(f"{difference} {p_equals(change.p_adjusted[name])} {c.verdict}".strip())
        rows.append([markdown(f"{change.b}, less {change.a}"), str(change.n_docs), *cells])
    return _table("change on the same docs", "confidences: changes", rows)


def _table(about: str, name: str, rows: Sequence[Sequence[str]]) -> list[str]:
    heads = [f"{title(metric)} {arrow(metric)}" for metric in columns(name)]
    return markdown_table([about, "docs", *heads], rows, ["---", "---:", *["---"] * len(heads)])


def json(tables: Sequence[Table], n_bins: int) -> str:
    """The tables for programs; undefined numbers are null."""
    return json_text({"n_bins": n_bins, "tasks": {shown(table.task): _plain(table) for table in tables}})


def _plain(table: Table) -> dict[str, Any]:
    return {
        "confidences": [
            {
                "run": row.answers.run,
                "kind": row.answers.kind,
                "n_docs": len(row.answers.docs),
                **({} if (n := n_clusters(row.answers.clusters)) is None else {"n_clusters": n}),
                "n_without": row.answers.n_without,
                **{name: {"value": m.value, "low": m.low, "high": m.high} for name, m in row.measured.items()},
            }
            for row in table.rows
        ],
        "changes": [
            {
                "from": change.a,
                "to": change.b,
                "n_docs": change.n_docs,
                **{name: {**c._asdict(), "p_adjusted": change.p_adjusted[name]} for name, c in change.found.items()},
            }
            for change in table.changes
        ],
    }


def picture(tables: Sequence[Table], n_bins: int, form: Form) -> bytes:
    """Reliability diagrams of every kind of confidence, task by task."""
    from lm_eval_calibration.plots.drawing import draw_reliability

    diagrams = [
        (
            f"{task_name(table.task)}: {row.answers.name}" if len(tables) > 1 else row.answers.name,
            prepare_reliability(row.answers.confidence, row.answers.correct, n_bins=n_bins),
        )
        for table in tables
        for row in table.rows
    ]
    of_each = {len(table.rows) for table in tables}
    in_rows = max(of_each) if len(tables) > 1 and len(of_each) == 1 and max(of_each) in (2, 4) else None
    return draw_reliability(diagrams, "Confidence against accuracy", form, n_columns=in_rows)


FORMATS: dict[str, Callable[[Sequence[Table], int], str | bytes]] = {
    "md": md,
    "json": json,
    **pictures(picture),
}
"""Functions by the name of their format."""
