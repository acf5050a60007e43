"""``lm-eval-calibration export``: a run's metrics for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Cluster, Latest, ModelPattern, Output, TaskPattern, n_bins_option, selection


def export(
    result: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder or a file of it.")],
    *,
    form: Annotated[
        str, typer.Option("--format", help="model-card, csv, every-eval-ever, or parquet (beside samples).")
    ] = "model-card",
    output: Output = None,
    merge: Annotated[
        Path | None, typer.Option(metavar="README.md", help="Write the results into this model card's metadata.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default that of the run.")] = None,
    cluster: Cluster = None,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    n_bins: Annotated[int | None, n_bins_option("those of the run")] = None,
) -> None:
    """Write a run's metrics in other tools' formats: a model card, a spreadsheet, Every Eval Ever's schema.

    None of them contains text of a doc, a prompt or an answer.

    Example: `lm-eval-calibration export results/a --format model-card --merge README.md`
    """
    from lm_eval_calibration.reports.export.command import export as export_run

    export_run(
        result,
        form=form,
        output=output,
        merge=merge,
        name=name,
        n_bins=n_bins,
        cluster=cluster,
        select=selection(latest, model, task),
    )
