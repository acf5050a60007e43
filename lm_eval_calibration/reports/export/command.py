"""``lm-eval-calibration export``: one run, in the form of others."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import typer
from tqdm import tqdm

from lm_eval_calibration.errors import OutputError, UserError
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.records.parquet import parquet_of, write_parquet
from lm_eval_calibration.reports.export.every_eval_ever import every_eval_ever
from lm_eval_calibration.reports.export.model_card import merged, model_card
from lm_eval_calibration.reports.formats import choose_format, print_or_write
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import json_text
from lm_eval_calibration.reports.runs import print_notes
from lm_eval_calibration.reports.tables import csv_table
from lm_eval_calibration.reports.values import Value, values
from lm_eval_calibration.results import Run, Selection, find_sources, load_run
from lm_eval_calibration.results.reading import SamplesFile

CSV_HEADS: tuple[str, ...] = ("model", "task", "version", "shots", "metric", "value", "stderr", "low", "high")
CSV_HEADS += ("null_mean", "null_upper", "p_value", "docs", "n_bins", "reason")


def as_csv(run: Run, found: Iterable[Value], name: str) -> str:
    """Return a line for each task and metric; what is undefined or does not apply is empty."""
    rows = []
    for value in found:
        m, null, configuration = value.measured, value.null, run.configuration
        about = shown(run.model), shown(value.scope), str(configuration.task_versions.get(value.scope, ""))
        shots = configuration.num_fewshot.get(value.tasks[0], "")
        nulls = (null.mean, null.upper, null.p_value) if null else [math.nan] * 3
        numbers = m.value, m.stderr, m.low, m.high, *nulls
        rows.append([*about, shots, value.metric, *map(float, numbers), m.n_docs, run.n_bins, m.reason or ""])
    return csv_table(CSV_HEADS, rows)


PARQUET = "parquet"

FORMATS: dict[str, Callable[[Run, list[Value], str], str]] = {
    "model-card": model_card,
    "csv": as_csv,
    "every-eval-ever": lambda run, found, name: json_text(every_eval_ever(run, found, name)),
}
"""Functions by the name of their format."""


def export(
    result: Path,
    *,
    form: str,
    output: Path | None,
    merge: Path | None,
    name: str | None,
    n_bins: int | None,
    cluster: str | None,
    select: Selection,
) -> None:
    """Print or write a run's metrics, or merge them into a model card; the arguments are the command's."""
    if form == PARQUET:
        if merge is not None or output is not None:
            raise UserError(
                "--format parquet writes a file beside each samples file: --output and --merge don't belong"
            )
        _write_parquet(result, select)
        return
    choose_format(form, None, [*FORMATS, PARQUET])
    if merge is not None and form != "model-card":
        raise UserError("--merge belongs to --format model-card")
    if merge is not None and not merge.is_file():
        raise UserError(f"{merge} is not a file")
    run = load_run(result, n_bins=n_bins, cluster=cluster, select=select)
    print_notes(run)
    found = list(tqdm(values(run, nulls=form == "csv"), desc="Metrics", delay=2, leave=False))
    _note_undefined(found)
    model = name or shown(run.model)
    if merge is not None:
        content, n_new, n_replaced = merged(merge, run, found, model)
        write_whole(output or merge, content)
        typer.echo(f"{n_new} results added, {n_replaced} replaced: {output or merge}", err=True)
    else:
        print_or_write(FORMATS[form](run, found, model), output, counted(len(found), what="values"))


def _write_parquet(result: Path, select: Selection) -> None:
    """Write the numbers of every samples file beside it; commands read them in its place."""
    found = find_sources([result])
    for reason in found.broken.values():
        typer.echo(f"note: left out: {reason}", err=True)
    for source in select.of(found.sources):
        for task, path in source.samples.items():
            if source.form is not None:
                typer.echo(f"note: {task} is left out: {path} is {source.form.name}, which is read as it is", err=True)
                continue
            if path.suffix == f".{PARQUET}":
                continue
            try:
                parquet_of(path).unlink(missing_ok=True)
                n_docs = write_parquet(parquet_of(path), SamplesFile(path, task).batches(), path)
            except OutputError:
                raise
            except UserError as error:
                typer.echo(f"note: {task} is left out: {error}", err=True)
                continue
            typer.echo(f"{counted(n_docs)}: {parquet_of(path)}", err=True)


def _note_undefined(found: list[Value]) -> None:
    names = defaultdict(set)
    for value in found:
        if math.isnan(value.measured.value) and value.measured.reason:
            names[value.measured.reason].add(value.metric)
    for reason in sorted(names):
        typer.echo(f"note: undefined: {', '.join(sorted(names[reason]))} ({reason})", err=True)
