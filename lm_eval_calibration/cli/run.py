"""The harness's own command with our tasks known: what ``lm-eval-calibration run`` is."""

import gc
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lm_eval.evaluator
import lm_eval.tasks
import yaml

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.redaction import KEEP_TEXTS, redacting, without_quotes
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager

SAMPLES_DIRECTORY = "lm_eval_results"
"""Where samples go when no ``--output_path`` says otherwise."""

_NO_SAMPLES = "--no_log_samples"
_TASKS = ("--tasks", "-t")


def run(arguments: Sequence[str], *, redact: bool = False) -> None:
    """Run ``lm_eval run`` with these arguments.

    Our task directory needs no ``--include_path`` (one given is used beside it), the stock index is read only when
    a task is not ours, and samples are logged unless ``--no_log_samples`` is among the arguments.

    Args:
        arguments: of the command.
        redact: keep ids, hashes and numbers, and no text of docs, prompts or answers, in files, loggers and errors.

    Raises:
        UserError: no task is named, or an option that keeps texts where they are to be left out.
    """
    from lm_eval.__main__ import cli_evaluate

    if not any(argument.startswith(_TASKS) for argument in arguments) and "tasks" not in _config(arguments):
        raise UserError("name what to run: --tasks NAME,... (lm-eval-calibration tasks --list has the names)")
    if redact:
        _refuse_what_keeps_texts(arguments)
    argv, manager, simple_evaluate = sys.argv, lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate
    sys.argv = ["lm_eval", "run", *with_samples(arguments)]
    # The command looks the class up when it runs; it has no flag for several include paths or no index.
    lm_eval.tasks.TaskManager = _TaskManager
    if redact:  # which has no flag either
        lm_eval.evaluator.simple_evaluate = redacting(simple_evaluate)
    gc.disable()  # nothing of the modules and the model that are loaded first is garbage, but there is much of it
    try:
        cli_evaluate()
    except UserError as error:
        if not redact:
            raise
        raise UserError(without_quotes(str(error))) from None
    finally:
        gc.enable()
        sys.argv, lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate = argv, manager, simple_evaluate


class _TaskManager(CalibrationTaskManager):
    """Is asked for its tasks once the model is loaded."""

    def load(self, task_list: Any) -> Any:
        """Load tasks, groups and tags."""
        gc.enable()
        return super().load(task_list)


def _refuse_what_keeps_texts(arguments: Sequence[str]) -> None:
    config = _config(arguments)
    for option in KEEP_TEXTS:
        if any(argument.split("=")[0] == option for argument in arguments) or config.get(option.lstrip("-")):
            raise UserError(f"{option} prints or keeps texts of docs, which --redact leaves out: run without it")


def with_samples(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with samples logged, somewhere, unless told not to."""
    if _NO_SAMPLES in arguments:
        return [argument for argument in arguments if argument != _NO_SAMPLES]
    config = _config(arguments)
    defaults = [] if "log_samples" in config else ["--log_samples"]
    if "output_path" not in config:
        defaults += ["--output_path", SAMPLES_DIRECTORY]
    return [*defaults, *arguments]  # of a flag given twice the later one, the user's, holds


def _config(arguments: Sequence[str]) -> dict[str, object]:
    """Return what a ``--config FILE`` sets; the harness itself complains about a bad one."""
    for flag, value in pairwise([*arguments, ""]):
        name, _, inline = flag.partition("=")
        if name in ("--config", "-C") and (path := Path(inline or value)).is_file():
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            return data if isinstance(data, dict) else {}
    return {}
