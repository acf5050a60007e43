"""``run --csv``: people's own questions as a task, whose YAML lies beside the results."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from lm_eval_calibration.errors import UserError

FOLDER = "tasks"
"""Where, in the folder of results, the task's YAML lies."""


@dataclass(frozen=True)
class Questions:
    """What the command's options say of the questions: see its help page."""

    source: str
    question: str | None
    options: str | None
    answer: str | None
    answers_are: str | None
    group: str | None


def write_task(given: Questions, results: Path, *, redact: bool, keep: Sequence[str]) -> Path:
    """Write the YAML of the task that these questions are, say what was found, and return its path.

    Args:
        given: the command's options.
        results: folder of the results.
        redact: quote no cell in an error.
        keep: fields that a redacted run keeps.

    Raises:
        UserError: naming row and column, or what could not be guessed.
    """
    from lm_eval_calibration.tasks import own_questions as own
    from lm_eval_calibration.tasks.files import write_task as write
    from lm_eval_calibration.tasks.question_files import read_table

    try:
        table = read_table(given.source)
        columns, guessed = own.find_columns(
            table,
            question=given.question,
            options=given.options,
            answer=given.answer,
            answers_are=given.answers_are,
        )
        own.check_column(table, *[name for name in (given.group, *keep) if name is not None])
        own.docs_of(table, columns)
    except own.CellError as error:
        if not redact:
            raise
        raise UserError(f"{error.where}: it can't be used (--redact leaves out why)") from None
    config = own.task_config(task_name(given.source), given.source, columns)
    path = write(config, results / FOLDER, _comment(config["task"], results / FOLDER))
    found = f"; found by their names: {' '.join(guessed)}" if guessed else ""
    typer.echo(f"{len(table.rows)} questions of {table.name}, answers as {columns.answers_are}{found}", err=True)
    typer.echo(f"Task file {path}, for the stock command: {_command(config['task'], path.parent)}", err=True)
    if redact and given.group is not None and given.group not in keep:
        typer.echo(f"--redact leaves {given.group} out, too; --keep {given.group} keeps it", err=True)
    return path


def task_name(source: str) -> str:
    """Return the name of a file's task: its own, in letters, digits and underscores."""
    from lm_eval_calibration.harness.task_configs import task_names

    path = Path(source)
    stem = re.sub(r"\W+", "_", path.stem if path.suffix else source, flags=re.ASCII).strip("_").lower() or "questions"
    name = f"{stem}_calibration"
    return f"{stem}_questions_calibration" if name in {n for names in task_names() for n in names} else name


def _command(task: str, folder: Path) -> str:
    return f"lm_eval run --include_path {shlex.quote(str(folder))} --tasks {task}"


def _comment(task: str, folder: Path) -> str:
    return (
        "Multiple-choice questions, written by lm-eval-calibration run --csv. doc_to_text is the prompt.\n"
        f"{_command(task, folder)} --model MODEL --model_args ARGS"
    )


def by_group(file: Path, group: str) -> str:
    """Return the command that shows each group of docs."""
    arguments: tuple[Any, ...] = ("recalibrate", file, "--by", f"doc.{group}")
    return f"lm-eval-calibration {shlex.join(map(str, arguments))}"
