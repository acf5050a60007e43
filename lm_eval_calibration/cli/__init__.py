"""The command ``lm-eval-calibration``: one module a subcommand, put together here."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from lm_eval_calibration import __version__
from lm_eval_calibration.cli.check import check
from lm_eval_calibration.cli.compare import compare
from lm_eval_calibration.cli.confidences import confidences
from lm_eval_calibration.cli.decide import decide
from lm_eval_calibration.cli.demo import demo
from lm_eval_calibration.cli.drift import drift
from lm_eval_calibration.cli.evidence import evidence
from lm_eval_calibration.cli.export import export
from lm_eval_calibration.cli.overwriting import refusing_to_overwrite_inputs
from lm_eval_calibration.cli.recalibrate import recalibrate
from lm_eval_calibration.cli.renaming import with_rename
from lm_eval_calibration.cli.report import report
from lm_eval_calibration.cli.run import run
from lm_eval_calibration.cli.runs import runs
from lm_eval_calibration.cli.tasks import tasks
from lm_eval_calibration.cli.tune import tune
from lm_eval_calibration.cli.view import view
from lm_eval_calibration.cli.ways_out import way_out
from lm_eval_calibration.errors import UserError

app = typer.Typer(
    name="lm-eval-calibration",
    help="Calibration beside accuracy in lm-evaluation-harness runs: can a model's probabilities be trusted?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

COMMANDS = (
    tasks,
    run,
    runs,
    recalibrate,
    report,
    view,
    decide,
    check,
    compare,
    drift,
    export,
    evidence,
    confidences,
    tune,
    demo,
)
"""In the order of the help page."""

SHOW_NAMES = (runs, recalibrate, report, view, decide, compare, drift, export, evidence, confidences)
"""What shows names of logged models and tasks."""

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What makes ``run`` hand the harness's options on."""


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"lm-eval-calibration {__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """End with the error's own words and exit code where the user can mend what is wrong."""
    try:
        yield
    except UserError as error:
        _say(str(error))
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        if (line := way_out(error, sys.argv)) is None:
            raise
        _say(line)
        raise typer.Exit(2) from None


def _say(error: str) -> None:
    from lm_eval_calibration.records.display import visible

    typer.secho(f"error: {visible(error)}", err=True, fg=typer.colors.RED)


for _command in COMMANDS:
    app.command(context_settings=PASS_THROUGH if _command is run else None)(
        _errors_in_one_line()(
            refusing_to_overwrite_inputs(with_rename(_command) if _command in SHOW_NAMES else _command)
        )
    )


def main() -> None:
    """Run the command."""
    atexit.register(gc.freeze)  # else the exit takes half a second more: all that torch keeps would be looked through
    app()
