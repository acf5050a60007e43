"""``lm-eval-calibration evidence``: a dated, hashed statement, and its verification."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Cluster, Latest, ModelPattern, TaskPattern, n_bins_option, selection


def evidence(
    result: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run's folder or a file of it.", show_default=False)
    ] = None,
    *,
    output: Annotated[Path, typer.Option(metavar="NAME", help="Write NAME.json and NAME.html.")] = Path("evidence"),
    domain: Annotated[
        str | None,
        typer.Option(help="What the tasks stand for, such as `medical exam questions`; by default their names."),
    ] = None,
    n_bins: Annotated[int | None, n_bins_option("those of the run")] = None,
    cluster: Cluster = None,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check instead that this statement is unaltered and made from RUN's files."),
    ] = None,
) -> None:
    """Write a dated, hashed statement of what was measured: values, intervals, on what data, with what limits.

    Facts about one model, for the records and for print; no claim of conformity with any law or standard.

    Example: `lm-eval-calibration evidence results/a --domain "medical exam questions" --output statement`
    """
    from lm_eval_calibration.reports.evidence import command

    if verify is not None:
        command.verify(verify, result, selection(latest, model, task))
    elif result is None:
        raise typer.BadParameter("name the RUN, or a statement to --verify")
    else:
        select = selection(latest, model, task)
        command.make(result, output=output, domain=domain, n_bins=n_bins, cluster=cluster, select=select)
