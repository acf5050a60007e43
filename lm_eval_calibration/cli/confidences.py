"""``lm-eval-calibration confidences``: the ways in which a model states its confidence, side by side."""

from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Cluster, Latest, ModelPattern, Output, Runs, n_bins_option, selection
from lm_eval_calibration.reports.formats import listed


def confidences(
    results: Runs,
    *,
    task: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Show these tasks. Repeatable.")] = None,
    cluster: Cluster = None,
    latest: Latest = False,
    model: ModelPattern = None,
    n_bins: Annotated[int | None, n_bins_option("those of the first run", "ECE")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help=f"{listed('md', 'json')} (reliability diagrams); by default --output's suffix decides."
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Put all ways in which a model states its confidence side by side, with the changes on the same docs.

    Its probabilities, these after temperature scaling, P(true) and what it says in words, as far as the runs have them;
    for several runs (a model before and after `tune`) those of each, and whether accuracy has changed.

    Example: `lm-eval-calibration confidences tuned/untuned tuned/tuned --output confidences.png`
    """
    from lm_eval_calibration.reports.confidences.command import confidences as show

    show(
        results,
        select=selection(latest, model),
        tasks=task or [],
        n_bins=n_bins,
        cluster=cluster,
        form=form,
        output=output,
    )
