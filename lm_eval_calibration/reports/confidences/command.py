"""``lm-eval-calibration confidences``: read the runs, make the tables, print or write them."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots import prepare_reliability
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.confidences.table import COMPARED, METRICS, Table, is_better, make_tables
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.results import Measured, Run, load_run

HEADS = {"acc": "accuracy ↑", "ece": "ECE ↓", "auroc": "AUROC ↑", "brier_top_label": "Brier (top label) ↓"}
HEADS |= {"overconfidence": "overconfidence →0"}


def confidences(
    results: Sequence[str], *, tasks: Sequence[str], n_bins: int | None, form: str | None, output: Path | None
) -> None:
    """Print or write how well each way of stating confidence does.

    Args:
        results: folders or files of runs, each NAME=PATH or PATH; the first is what the others are compared with.
        tasks: those to show; all that the runs have in common where there are none.
        n_bins: bins of ECE; those of the first run where not given.
        form: "md", "json", "svg" or "png"; by the output's suffix where not given.
        output: file to write.

    Raises:
        UserError: a run can't be read, no task in common, an unknown format.
    """
    form = form or ("md" if output is None else output.suffix.removeprefix("."))
    if form not in FORMATS:
        raise UserError(f"no format {form!r}; there are {', '.join(FORMATS)}")
    if form == "png" and output is None:
        raise UserError("a PNG is no text: give --output FILE")
    runs = dict(map(_read, results))
    if len(runs) < len(results):
        raise UserError("two runs have the same name: give others as NAME=PATH")
    common = [task for task in next(iter(runs.values())).tasks if all(task in run.tasks for run in runs.values())]
    if unknown := [task for task in tasks if task not in common]:
        raise UserError(f"no task {unknown[0]!r} in common; there are {', '.join(common) or 'none'}")
    if not common:
        raise UserError("the runs have no task in common")
    bins = n_bins or next(iter(runs.values())).n_bins
    content = FORMATS[form](make_tables(runs, list(tasks or common), bins), bins)
    if output is None:
        typer.echo(content, nl=False)
    else:
        write_whole(output, content)
        typer.echo(f"{len(runs)} runs, {len(tasks or common)} tasks: {output}", err=True)


def _read(text: str) -> tuple[str, Run]:
    name, equals, path = text.partition("=")
    if not equals or not name or Path(text).exists():
        name, path = Path(text).resolve().name, text
    return name, load_run(path)


def text(tables: Sequence[Table], n_bins: int) -> str:
    """Markdown tables: each way by metrics, then what changes on the same docs."""
    lines = []
    for table in tables:
        lines += [f"### {markdown(table.task)}", ""]
        lines.append(_line(["confidence", "docs", *(HEADS[name] for name in ("acc", *METRICS))]))
        lines.append(_line(["---", "---:", *["---"] * (1 + len(METRICS))]))
        for row in table.rows:
            docs = f"{len(row.stated.docs)}" + (f" ({row.stated.n_without} without)" if row.stated.n_without else "")
            cells = (_value(row.measured[name]) for name in ("acc", *METRICS))
            lines.append(_line([markdown(row.stated.name), docs, *cells]))
        lines.append("")
        if table.changes:
            lines.append(_line(["on the same docs", "docs", *(f"change of {HEADS[name]}" for name in COMPARED)]))
            lines.append(_line(["---", "---:", *["---"] * len(COMPARED)]))
        for change in table.changes:
            cells = (
                f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}] {is_better(name, c)}".strip()
                for name, c in change.found.items()
            )
            what = f"{change.b}, less {change.a}"
            lines.append(_line([markdown(what), str(change.n_docs), *cells]))
        lines.append("")
    lines.append(
        f"95% intervals in brackets, {n_bins} bins. Temperatures are cross-fitted over docs. Changes are estimates for "
        "all such docs: of ECE without its bias, so they need not be the difference of two values."
    )
    return "\n".join(lines) + "\n"


def as_json(tables: Sequence[Table], n_bins: int) -> str:
    """The same for programs; undefined numbers are null."""
    data = {
        "n_bins": n_bins,
        "tasks": {
            table.task: {
                "confidences": [
                    {
                        "run": row.stated.run,
                        "kind": row.stated.kind,
                        "n_docs": len(row.stated.docs),
                        "n_without": row.stated.n_without,
                        **{
                            name: {"value": _plain(m.value), "low": _plain(m.low), "high": _plain(m.high)}
                            for name, m in row.measured.items()
                        },
                    }
                    for row in table.rows
                ],
                "changes": [
                    {
                        "from": change.a,
                        "to": change.b,
                        "n_docs": change.n_docs,
                        **{name: {k: _plain(v) for k, v in c._asdict().items()} for name, c in change.found.items()},
                    }
                    for change in table.changes
                ],
            }
            for table in tables
        },
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def picture(tables: Sequence[Table], n_bins: int, suffix: str) -> bytes:
    """Reliability diagrams of every way, task by task."""
    from lm_eval_calibration.plots.drawing import draw_reliability

    diagrams = [
        (
            f"{table.task}: {row.stated.name}" if len(tables) > 1 else row.stated.name,
            prepare_reliability(row.stated.confidence, row.stated.correct, n_bins=n_bins),
        )
        for table in tables
        for row in table.rows
    ]
    return draw_reliability(diagrams, "Said against right", suffix)


FORMATS: dict[str, Callable[[Sequence[Table], int], str | bytes]] = {
    "md": text,
    "json": as_json,
    "svg": lambda tables, n_bins: picture(tables, n_bins, "svg"),
    "png": lambda tables, n_bins: picture(tables, n_bins, "png"),
}
"""Functions by the name of their format."""


def _value(found: Measured) -> str:
    if math.isnan(found.value):
        return "undefined"
    return f"{found.value:.4f}" + ("" if math.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]")


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
