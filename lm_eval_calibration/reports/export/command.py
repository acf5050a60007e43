"""``lm-eval-calibration export``: one run, in the form of others."""

import json
import math
from pathlib import Path

import typer
from tqdm import tqdm

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.export.csv_table import csv_table
from lm_eval_calibration.reports.export.every_eval_ever import every_eval_ever
from lm_eval_calibration.reports.export.model_card import merged, model_card
from lm_eval_calibration.reports.export.values import Value, values
from lm_eval_calibration.results import Run, load_run

FORMATS = ("model-card", "csv", "every-eval-ever")


def export(
    result: Path, *, form: str, output: Path | None, merge: Path | None, name: str | None, n_bins: int | None
) -> None:
    """Print or write a run's metrics.

    Args:
        result: folder or file of the run.
        form: one of :data:`FORMATS`.
        output: file to write instead of printing.
        merge: model card to write the results into.
        name: of the model; that of the run where not given.
        n_bins: bins of the binned metrics; those of the run where not given.
    """
    if form not in FORMATS:
        raise UserError(f"no format {form!r}; there are {', '.join(FORMATS)}")
    if merge is not None and form != "model-card":
        raise UserError("--merge belongs to --format model-card")
    if merge is not None and not merge.is_file():
        raise UserError(f"{merge} is no file")
    run = load_run(result, n_bins=n_bins)
    found = list(tqdm(values(run, nulls=form == "csv"), desc="Metrics", delay=2, leave=False))
    _say_what_is_left_out(found)
    model = name or run.model
    if merge is not None:
        content, n_new, n_replaced = merged(merge, run, found, model)
        write_whole(output or merge, content)
        typer.echo(f"{n_new} results added, {n_replaced} replaced: {output or merge}", err=True)
    elif output is not None:
        write_whole(output, _text(form, run, found, model))
        typer.echo(f"{len(found)} values: {output}", err=True)
    else:
        typer.echo(_text(form, run, found, model), nl=False)


def _text(form: str, run: Run, found: list[Value], name: str) -> str:
    if form == "csv":
        return csv_table(run, found)
    if form == "model-card":
        return model_card(run, found, name)
    return json.dumps(every_eval_ever(run, found, name), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _say_what_is_left_out(found: list[Value]) -> None:
    reasons = {
        value.measured.reason or "" for value in found if math.isnan(value.measured.value) and value.measured.reason
    }
    for reason in sorted(reasons):
        names = sorted({v.metric for v in found if math.isnan(v.measured.value) and v.measured.reason == reason})
        typer.echo(f"note: undefined: {', '.join(names)} ({reason})", err=True)
