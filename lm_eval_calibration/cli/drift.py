"""``lm-eval-calibration drift``: a gate for CI."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Cluster, Latest, ModelPattern, Output, TaskPattern, n_bins_option, selection


def drift(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The run to compare with: its folder or a file of it.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The new run.")],
    *,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Metrics to test; by default acc and the core metrics.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="[METRIC=]NUMBER", help="How much worse a metric may be; by default 0.02. Repeatable."),
    ] = None,
    n_bins: Annotated[int | None, n_bins_option("those of the runs")] = None,
    form: Annotated[str, typer.Option("--format", help="text, json, junit, github or md (for a job page).")] = "text",
    fail_on_unclear: Annotated[
        bool,
        typer.Option(
            "--fail_on_unclear",
            help="Exit code 1 also where the docs are too few to tell, and how many would settle it.",
        ),
    ] = False,
    cluster: Cluster = None,
    same_docs: Annotated[
        bool, typer.Option("--same_docs", help="Docs that were added, removed or changed are exit code 2.")
    ] = False,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    output: Output = None,
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the runs to this JSONL file, one line each.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the history: .svg, .png, .pdf or .html.")
    ] = None,
) -> None:
    """Has calibration become worse than tolerated? Exit code 0: not shown; 1: drifted; 2: not comparable.

    Every metric and task is tested: has it become worse by more than its tolerance? Docs are paired where both runs
    have them. All tests together give a false alarm at most 5% of the time (Holm).

    Example: `lm-eval-calibration drift results/june results/july --tolerance ece=0.03 --format github`
    """
    from lm_eval_calibration.reports.drift.command import drift as test_drift

    code = test_drift(
        base,
        new,
        metrics=metrics,
        tolerance=tolerance or [],
        n_bins=n_bins,
        cluster=cluster,
        select=selection(latest, model, task),
        same_docs=same_docs,
        form=form,
        output=output,
        history=history,
        picture=picture,
        fail_on_unclear=fail_on_unclear,
    )
    raise typer.Exit(code)
