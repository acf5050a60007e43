"""``lm-eval-calibration decide``: when may the model answer alone?"""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Cluster, Columns, Latest, ModelPattern, TaskPattern, selection


def decide(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="`samples_*.jsonl` files, or folders that hold them.")
    ],
    *,
    error_rate: Annotated[
        float | None, typer.Option("--error_rate", help="How many of its answers may be wrong; by default 0.05.")
    ] = None,
    confidence_level: Annotated[
        float | None,
        typer.Option("--confidence_level", help="How sure the error rate is to be kept; by default 0.95."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="A threshold for each task, or each doc.FIELD (doc.ward); all hold at once."
        ),
    ] = None,
    cluster: Cluster = None,
    columns: Columns = None,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    fit_on: Annotated[
        str | None,
        typer.Option(
            "--fit_on",
            metavar="FIELD=VALUE",
            help="Decide on these docs (task=NAME, doc.FIELD=VALUE) and show the decision on the rest; by default on "
            "60% of the docs.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS",
            help="Also show whether confidence holds in every group of docs: all, or doc.ward,doc.language; by "
            "each field and each pair of fields, with intervals that hold for all groups at once.",
        ),
    ] = None,
    cost_wrong: Annotated[float | None, typer.Option("--cost_wrong", help="What a wrong answer costs.")] = None,
    cost_abstain: Annotated[float | None, typer.Option("--cost_abstain", help="What an abstention costs.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the decision, for --apply and for your service.")
    ] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="FILE", help="Check this saved decision on RESULTS.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what each error rate would give: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """From which confidence on may the model answer alone, with a guarantee, and which options can be ruled out?

    The threshold is chosen on some docs and shown on others. With `--apply`: does a saved decision still hold? Exit
    code 0: nothing speaks against it, or nothing was promised; 1: it is broken, or the docs have changed; 2: bad input,
    another model or another task.

    Example: `lm-eval-calibration decide lm_eval_results --error_rate 0.05 --output decision.json`, then
    `lm-eval-calibration decide --apply decision.json NEW_RESULTS`.
    """
    from lm_eval_calibration.reports.decide import command

    if apply is not None:
        of_deciding = (error_rate, confidence_level, by, fit_on, groups, cost_wrong, cost_abstain, output, picture)
        if any(given is not None for given in of_deciding):
            raise typer.BadParameter("--apply takes what it needs from its file; beside it go --cluster and --format")
        raise typer.Exit(
            command.apply(apply, results, selection(latest, model, task, columns), cluster=cluster, form=form)
        )
    command.decide(
        results,
        selection(latest, model, task, columns),
        error_rate=0.05 if error_rate is None else error_rate,
        confidence_level=0.95 if confidence_level is None else confidence_level,
        costs=(cost_wrong, cost_abstain),
        by=by,
        cluster=cluster,
        fit_on=fit_on,
        groups=groups,
        output=output,
        form=form,
        picture=picture,
    )
