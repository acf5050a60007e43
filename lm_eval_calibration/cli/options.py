"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Folder or file of each run, or NAME=PATH to name it.")
]
Folders = Annotated[
    list[Path], typer.Argument(metavar="FOLDER...", help="Folders, searched at any depth, or files of runs.")
]
Latest = Annotated[bool, typer.Option("--latest", help="Of several runs the one that ended last.")]
ModelPattern = Annotated[
    str | None,
    typer.Option("--model", metavar="PATTERN", help="Runs of this model: a glob, or a part of its name."),
]
TaskPattern = Annotated[
    str | None,
    typer.Option("--task", metavar="PATTERN", help="These tasks and groups alone: a glob, or a part of the name."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="Read tables (CSV, Parquet, JSONL) with a row a doc: confidence=...,correct=... or gold=... with "
        "probabilities=... or log_likelihoods=...; task=... and doc_id=... too.",
    ),
]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of printing.")]
IncludePath = Annotated[
    Path | None,
    typer.Option("--include_path", metavar="DIR", help="Your own task YAMLs, alongside the harness's."),
]


Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="doc.FIELD",
        help="Docs with the same value of this field were drawn together (a passage, a patient); by default what the "
        "run knew; '' for none.",
    ),
]


def selection(
    latest: bool = False, model: str | None = None, task: str | None = None, columns: str | None = None
) -> Any:
    """Return which of several runs is meant."""
    from lm_eval_calibration.results import Selection

    return Selection(latest, model, task, columns)


def n_bins_option(default: str = "", binned: str = "the binned metrics") -> Any:
    """Return the option ``--n_bins``; ``default`` says in words which number of bins applies without it."""
    return typer.Option("--n_bins", min=1, max=100, help=f"Bins of {binned}{default and f'; by default {default}'}.")
