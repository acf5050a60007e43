"""``lm-eval-calibration runs``: which runs a folder holds."""

from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Folders, Latest, ModelPattern, Output, TaskPattern, selection


def runs(
    folders: Folders,
    *,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    form: Annotated[
        str | None, typer.Option("--format", help="table, md, csv or json; by default --output's suffix decides.")
    ] = None,
    output: Output = None,
) -> None:
    """List the runs that a folder holds: model, date, tasks, docs, settings and file, the latest last.

    Any command takes that file, or the folder with `--latest`, `--model PATTERN` or `--task PATTERN`.

    Example: `lm-eval-calibration runs lm_eval_results --model llama`
    """
    from lm_eval_calibration.reports.listing import list_runs

    list_runs(folders, selection(latest, model, task), form=form, output=output)
