"""The harness's command line with a task manager of our choice, for which it has no flag."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import lm_eval.evaluator
import lm_eval.tasks

from lm_eval_calibration.backends.hf.gguf_files import read_once
from lm_eval_calibration.harness.arguments import as_arguments, parsed
from lm_eval_calibration.harness.numbers import results_file
from lm_eval_calibration.harness.output import check_writable, whole_files
from lm_eval_calibration.harness.redacted_output import redacted_output
from lm_eval_calibration.harness.redaction import redacting, refuse_keeping_texts

DEVICE = "cuda:0"
"""What the harness's command runs a model on unless told otherwise: the first GPU, and the CPU where there is none.

Its ``simple_evaluate`` alone takes "cuda", which a torch without CUDA can't.
"""


def run_command(
    arguments: Sequence[str], task_manager: type[Any], *, redact: bool, keep: Sequence[str] = ()
) -> Path | None:
    """Run ``lm_eval run`` with these arguments; the harness is afterwards as it was before.

    Args:
        arguments: of the command.
        task_manager: the class by which the command finds tasks (it has no flag for several include paths, or for
            leaving out the stock index).
        redact: keep no texts in what the evaluation returns, before any file or logger sees it, and say none.
        keep: fields of docs that stay all the same.

    Returns:
        The file of results that the run has written; None where it has written none.

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
    trackers: list[Any] = []
    try:
        lm_eval.tasks.TaskManager = task_manager  # looked up when the command runs
        evaluate = redacting(simple_evaluate, keep) if redact else simple_evaluate
        lm_eval.evaluator.simple_evaluate = _noting_tracker(evaluate, trackers)
        quiet = redacted_output() if redact else nullcontext()
        with as_arguments(arguments), whole_files(), read_once(config.model_args), quiet:
            cli_evaluate()
    finally:
        lm_eval.tasks.TaskManager, lm_eval.evaluator.simple_evaluate = manager, simple_evaluate
    return results_file(trackers[0]) if trackers else None


def _noting_tracker(simple_evaluate: Callable[..., Any], trackers: list[Any]) -> Callable[..., Any]:
    @wraps(simple_evaluate)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        trackers.append(kwargs.get("evaluation_tracker"))
        return simple_evaluate(*args, **kwargs)

    return evaluate
