"""``lm-eval-calibration recalibrate``: fit a map of confidences, or evaluate a saved one."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import (
    Cluster,
    Columns,
    Latest,
    ModelPattern,
    TaskPattern,
    n_bins_option,
    selection,
)


def recalibrate(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="`samples_*.jsonl` files, or folders that hold them.")
    ],
    *,
    method: Annotated[
        str,
        typer.Option(
            help="temperature, platt, isotonic, beta (needs `pip install betacal`), histogram, multicalibrated (right "
            "in every group of docs), or token_temperature (for runs with the option temperatures)."
        ),
    ] = "temperature",
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="One map for each task, or for each doc.FIELD (doc.subject).")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS", help="For multicalibrated: whose groups, as doc.ward,doc.language; by default all."
        ),
    ] = None,
    fit_on: Annotated[
        str | None,
        typer.Option("--fit_on", metavar="FIELD=VALUE", help="Fit on these docs (task=NAME, doc.FIELD=VALUE) alone."),
    ] = None,
    cluster: Cluster = None,
    columns: Columns = None,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the map.")] = None,
    apply: Annotated[
        Path | None,
        typer.Option("--apply", metavar="FILE", help="Evaluate this saved map on RESULTS instead of fitting one."),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Folds of docs; each is evaluated with a map fitted on the others.")
    ] = 5,
    n_bins: Annotated[int, n_bins_option()] = 10,
    error_rate: Annotated[
        float | None,
        typer.Option(
            "--error_rate",
            min=0,
            max=1,
            help="Superseded by `decide --error_rate`, which promises it: the confidence above which answers were "
            "wrong this rarely.",
        ),
    ] = None,
) -> None:
    """Fit a map that makes confidence honest; show every metric before and after, on docs it was not fitted on.

    Each fold of docs is evaluated with a map fitted on the other folds, and the saved map is fitted on all of them; or
    `--fit_on` names a calibration split, and the map is evaluated on the rest.

    Example: `lm-eval-calibration recalibrate lm_eval_results --method temperature --by task --output map.json`, then
    `lm-eval-calibration recalibrate --apply map.json OTHER_RESULTS`. No map is evaluated on docs it was fitted on.
    """
    from lm_eval_calibration.reports.recalibrate import command

    if apply is None:
        command.fit(
            results,
            selection(latest, model, task, columns),
            method=method,
            by=by,
            groups=groups,
            fit_on=fit_on,
            cluster=cluster,
            output=output,
            folds=folds,
            n_bins=n_bins,
            error_rate=error_rate,
        )
    elif any(option is not None for option in (by, groups, fit_on, output, error_rate)):
        raise typer.BadParameter("--by, --groups, --fit_on, --output, --error_rate are for fitting, not for --apply")
    else:
        command.apply(apply, results, selection(latest, model, task, columns), cluster=cluster, n_bins=n_bins)
