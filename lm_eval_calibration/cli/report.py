"""``lm-eval-calibration report``: one self-contained file about a run."""

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
from lm_eval_calibration.reports.formats import listed


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS...",
            help="Folders, `results_*.json` or `samples_*.jsonl` of a run, stock ones too; of several runs one each, "
            "as PATH or NAME=PATH, which gives one page with all of them side by side.",
        ),
    ],
    *,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to write; by default report.html, or what --format says.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help=f"{listed('html', 'md', 'json')}; by default FILE's suffix decides.")
    ] = None,
    n_bins: Annotated[int | None, n_bins_option("the run's own")] = None,
    cluster: Cluster = None,
    columns: Columns = None,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Keep ids, hashes and numbers, and no text of docs, prompts or answers.")
    ] = False,
) -> None:
    """Write one self-contained file: verdicts in plain words for each domain, then diagrams, tables and the method.

    Needs no model. Folders of stock runs can be read too, as far as their tasks are multiple choice.

    Example: `lm-eval-calibration report lm_eval_results --output report.html`
    """
    from lm_eval_calibration.reports.report.command import write_report

    write_report(
        results,
        output,
        format_=format_,
        n_bins=n_bins,
        cluster=cluster,
        select=selection(latest, model, task, columns),
        redact=redact,
    )
