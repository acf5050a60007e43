"""The command in this process."""

from typing import Any

from typer.testing import CliRunner

from lm_eval_calibration.cli import app


def run_command(*arguments: object) -> Any:
    """Run ``lm-eval-calibration`` and return what it gave; an error that is not the user's is raised."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def cells(line: str) -> list[str]:
    """The cells of a line of a table that was printed for no terminal."""
    return [cell.strip() for cell in line.split("\t")]
