"""The harness's command line with a task manager of our choice, for which it has no flag."""

import sys
from collections.abc import Sequence
from typing import Any

import lm_eval.evaluator
import lm_eval.tasks

from lm_eval_calibration.harness.redaction import redacting


def run_command(arguments: Sequence[str], task_manager: type[Any], *, redact: bool) -> None:
    """Run ``lm_eval run`` with these arguments; the harness is afterwards as it was before.

    Args:
        arguments: of the command.
        task_manager: the class by which the command finds tasks (it has no flag for several include paths, or for
            leaving out the stock index).
        redact: keep no texts in what the evaluation returns, before any file or logger sees it.
    """
    from lm_eval.__main__ import cli_evaluate

    argv, manager, simple_evaluate = sys.argv, lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate
    try:
        sys.argv = ["lm_eval", "run", *arguments]
        lm_eval.tasks.TaskManager = task_manager  # looked up when the command runs
        if redact:
            lm_eval.evaluator.simple_evaluate = redacting(simple_evaluate)
        cli_evaluate()
    finally:
        sys.argv, lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate = argv, manager, simple_evaluate
