"""``lm-eval-calibration tasks``: where our task files are, what can be calibrated, files for the stock command."""

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_calibration.cli.options import IncludePath
from lm_eval_calibration.cli.tables import print_table
from lm_eval_calibration.harness.task_configs import task_configs, task_names


def tasks(
    names: Annotated[bool, typer.Option("--list", help="List the groups and tasks instead.")] = False,
    every_task: Annotated[
        bool,
        typer.Option(
            "--all", help="With --list: every task that the harness knows, and why some of them can't be calibrated."
        ),
    ] = False,
    selected: Annotated[
        str | None,
        typer.Option("--for", metavar="NAME,...", help="Write the YAMLs of these tasks, groups or tags to --output."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Where --for writes.")] = None,
    include_path: IncludePath = None,
) -> None:
    """Print the directory of our task files, for `lm_eval run --include_path "$(lm-eval-calibration tasks)"`.

    `--list` names what is in it, `--list --all` everything that `lm-eval-calibration run` can calibrate by adding
    `_calibration` to its name. `--for hellaswag,arc_easy --output DIR` writes files for the stock command.
    """
    if selected is not None:
        _write_files(selected, output, include_path)
    elif every_task:
        _list_all(include_path)
    elif names:
        groups, leaves = task_names()
        kinds = [*((name, "group") for name in groups), *((name, "task") for name in leaves)]
        print_table(("name", "kind"), kinds, n_plain_columns=1)
    else:
        typer.echo(task_configs())


def _list_all(include_path: Path | None) -> None:
    from lm_eval_calibration.tasks.files import what_can_be_calibrated

    rows = [
        (name, kind, "yes" if reason is None else f"no: {reason}")
        for name, kind, reason in what_can_be_calibrated(include_path)
    ]
    print_table(("name", "kind", "can be calibrated"), rows, n_plain_columns=3)
    for kind in ("task", "group", "tag"):
        answers = [answer for _, of_kind, answer in rows if of_kind == kind]
        typer.echo(f"{answers.count('yes')} of {len(answers)} {kind}s can be calibrated", err=True)


def _write_files(names: str, output: Path | None, include_path: Path | None) -> None:
    from lm_eval_calibration.tasks.files import write_files

    if output is None:
        raise typer.BadParameter("--for needs --output DIR to write to")
    paths = write_files([name for name in names.split(",") if name], output, include_path)
    typer.echo(f"{len(paths)} files in {output}; use them with: lm_eval run --include_path {output} --tasks NAME")
