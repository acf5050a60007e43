"""The harness's own command with our tasks known to it: what ``lm-eval-calibration run`` runs."""

import gc
import os
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import typer
import yaml

from lm_eval_calibration.cli.own_questions import Questions, by_group, write_task
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.command import run_command
from lm_eval_calibration.harness.loggers import logging_more
from lm_eval_calibration.harness.terminal import for_people
from lm_eval_calibration.reports.tracked import tracked
from lm_eval_calibration.tasks.any_task import SUFFIX
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager

SAMPLES_DIRECTORY = "lm_eval_results"
"""Where samples go when no ``--output_path`` says otherwise."""

_TASKS = ("--tasks", "-t")

_VERBOSITY = ("--verb", "-v")
"""How the harness's option for it begins: whoever names a level wants to see what the harness logs."""


class _TaskManager(CalibrationTaskManager):
    """Finds tasks in a folder of ours, too; loads them after the model, from when on garbage is worth collecting.

    Attributes:
        folder: of task files beside the user's ``include_path``.
    """

    folder: Path | None = None

    def __init__(self, include_path: Any = None, **options: Any) -> None:
        super().__init__([path for path in (self.folder, include_path) if path is not None], **options)

    def load(self, task_list: Any) -> Any:
        """Load tasks, groups and tags."""
        gc.enable()
        return super().load(task_list)


def run(
    arguments: Sequence[str],
    *,
    log_samples: bool = True,
    redact: bool = False,
    keep: Sequence[str] = (),
    questions: Questions | None = None,
) -> None:
    """Run ``lm_eval run`` with these arguments.

    Our task directory needs no ``--include_path`` (one given is used beside it), and the stock index is read only when
    a task is not ours.

    Args:
        arguments: of the command.
        log_samples: add the arguments that log samples.
        redact: keep ids, hashes and numbers, and no text of docs, prompts or answers, in files, loggers and errors.
        keep: fields of docs that are logged all the same.
        questions: people's own questions, which are then the task.

    Raises:
        UserError: no task is named, or two; with ``redact`` an option that keeps texts; questions that can't be used.
        OutputError: naming what can't be written.
    """
    config, file_of_task = _config(arguments), None
    if questions is not None:
        if any(argument.startswith(_TASKS) for argument in arguments) or "tasks" in config:
            raise UserError("--csv and --tasks each name what to run: give one of them")
        file_of_task = write_task(questions, _folder_of_results(arguments), redact=redact, keep=keep)
        arguments = ["--tasks", file_of_task.stem, *arguments]
    elif not any(argument.startswith(_TASKS) for argument in arguments) and "tasks" not in config:
        raise UserError("name what to run: --tasks NAME,... (lm-eval-calibration tasks --list has the names)")
    _hint_at_names(_names_of_tasks(arguments, config), arguments)
    names_level = any(a.startswith(_VERBOSITY) for a in arguments) or "LMEVAL_LOG_LEVEL" in os.environ
    gc.disable()  # of the many objects of the modules and the model, which are loaded first, none is garbage
    try:
        with for_people(not names_level and "verbosity" not in config), logging_more(tracked):
            file = run_command(
                with_samples(arguments) if log_samples else arguments,
                type("TaskManager", (_TaskManager,), {"folder": file_of_task and file_of_task.parent}),
                redact=redact,
                keep=keep,
            )
    finally:
        gc.enable()
    if file is not None and log_samples:
        typer.echo(
            f"Next: {_what_next(file, questions, is_grouped=not redact or _group_of(questions) in keep)}", err=True
        )


def _names_of_tasks(arguments: Sequence[str], config: Mapping[str, object]) -> list[str]:
    """Return what is named after ``--tasks``, in one argument or several, or in a ``--config``."""
    given: list[str] = []
    for i, argument in enumerate(arguments):
        flag, equals, inline = argument.partition("=")
        if flag in _TASKS:
            given = [inline] if equals else list(takewhile(lambda text: not text.startswith("-"), arguments[i + 1 :]))
    listed = given or config.get("tasks")
    texts = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    return [name.strip() for text in texts for name in str(text).split(",") if name.strip()]


def _hint_at_names(names: Sequence[str], arguments: Sequence[str]) -> None:
    """Say, before anything is loaded, where a name lacks what makes it calibrated.

    Raises:
        UserError: a name is that of a table of questions.
    """
    for name in names:
        if Path(name).suffix.lower() in (".csv", ".tsv", ".parquet", ".jsonl", ".xlsx"):
            raise UserError(
                f"{name} is a table, not a task: lm-eval-calibration run --csv {name} --model ... makes one of it"
            )
    if "--include_path" not in " ".join(arguments):  # where a user's own file may be calibrated under any name
        plain = [name for name in names if name.isidentifier() and not name.endswith(SUFFIX)]
        if forgotten := [name for name in plain if name + SUFFIX not in names]:
            calibrated = ",".join(name + SUFFIX for name in forgotten)
            typer.echo(f"{', '.join(forgotten)}: run without calibration; with it: --tasks {calibrated}", err=True)


def _group_of(questions: Questions | None) -> str | None:
    return None if questions is None else questions.group


def _what_next(file: Path, questions: Questions | None, *, is_grouped: bool) -> str:
    if is_grouped and (group := _group_of(questions)) is not None:
        return by_group(file, group)
    return f"lm-eval-calibration report {shlex.quote(str(file))} --output report.html"


def _folder_of_results(arguments: Sequence[str]) -> Path:
    """Return the folder in which the harness writes: its ``--output_path``, or what that is in a ``--config``."""
    named = _config(arguments).get("output_path")
    for flag, value in pairwise([*arguments, ""]):
        name, equals, inline = flag.partition("=")
        if name in ("--output_path", "-o"):
            named = inline if equals else value
        elif flag.startswith("-o") and not flag.startswith("--"):
            named = flag[2:]
    path = Path(str(named)) if named else Path(SAMPLES_DIRECTORY)
    return path.parent if path.suffix == ".json" else path


def with_samples(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those that log samples, as far as a ``--config`` doesn't decide that."""
    config = _config(arguments)
    defaults = [] if "log_samples" in config else ["--log_samples"]
    if "output_path" not in config:
        defaults += ["--output_path", SAMPLES_DIRECTORY]
    return [*defaults, *arguments]  # of a flag given twice the later one, the user's, holds


def _config(arguments: Sequence[str]) -> dict[str, object]:
    """Return what a ``--config FILE`` sets; the harness itself complains about a bad one."""
    for flag, value in pairwise([*arguments, ""]):
        name, _, inline = flag.partition("=")
        if flag.startswith("-C"):
            name, inline = flag[:2], flag[2:].removeprefix("=")
        if name in ("--config", "-C") and (path := Path(inline or value)).is_file():
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            return data if isinstance(data, dict) else {}
    return {}
