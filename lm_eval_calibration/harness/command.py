"""The harness's command line with a task manager of our choice, for which it has no flag."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import lm_eval.evaluator
import lm_eval.tasks

from lm_eval_calibration.harness.arguments import as_arguments, parsed
from lm_eval_calibration.harness.output import check_writable, whole_files
from lm_eval_calibration.harness.redacted_output import redacted_output
from lm_eval_calibration.harness.redaction import redacting, refuse_keeping_texts


def run_command(arguments: Sequence[str], task_manager: type[Any], *, redact: bool) -> None:
    """Run ``lm_eval run`` with these arguments; the harness is afterwards as it was before.

    Args:
        arguments: of the command.
        task_manager: the class by which the command finds tasks (it has no flag for several include paths, or for
            leaving out the stock index).
        redact: keep no texts in what the evaluation returns, before any file or logger sees it, and say none.

    Raises:
        UserError: an option that can't be used; with ``redact`` also in the place of every other error.
        OutputError: naming what can't be written.
    """
    from lm_eval.__main__ import cli_evaluate

    config = parsed(arguments)
    if redact:
        refuse_keeping_texts(config)
    if config.output_path:
        check_writable(config.output_path)
    manager, simple_evaluate = lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate
    try:
        lm_eval.tasks.TaskManager = task_manager  # looked up when the command runs
        if redact:
            lm_eval.evaluator.simple_evaluate = redacting(simple_evaluate)
        with as_arguments(arguments), whole_files(), redacted_output() if redact else nullcontext():
            cli_evaluate()
    finally:
        lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate = manager, simple_evaluate
