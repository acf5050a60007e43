"""``lm-eval-calibration compare``: several runs side by side."""

from typing import Annotated

import typer

from lm_eval_calibration.cli.options import (
    Cluster,
    Columns,
    Latest,
    ModelPattern,
    Output,
    Runs,
    n_bins_option,
    selection,
)
from lm_eval_calibration.reports.formats import listed


def compare(
    results: Runs,
    *,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Columns; by default acc and the core metrics.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Show these tasks or groups: a glob, or a part of a name; `all`: the docs of all tasks. Repeatable.",
        ),
    ] = None,
    n_bins: Annotated[int | None, n_bins_option("those of the runs")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"{listed('table', 'md', 'latex', 'bibtex', 'csv', 'json', 'html')}; by default --output's suffix "
            "decides.",
        ),
    ] = None,
    cluster: Cluster = None,
    columns: Columns = None,
    latest: Latest = False,
    model: ModelPattern = None,
    output: Output = None,
) -> None:
    """Put runs side by side: every metric with its interval; the best is marked, as are those tied within noise.

    Every two runs are tested on the docs that both have, corrected over the whole table (Holm). `html`, `svg`, `png`
    and `pdf` show accuracy against calibration error with the Pareto front. Of one folder all runs are compared, with
    `--latest` the last one of each model.

    Example: `lm-eval-calibration compare results/a results/b --format latex --output table.tex`
    """
    from lm_eval_calibration.reports.compare.command import compare as compare_runs

    compare_runs(
        results,
        select=selection(latest, model, None, columns),
        metrics=metrics,
        tasks=task or [],
        n_bins=n_bins,
        cluster=cluster,
        form=form,
        output=output,
    )
