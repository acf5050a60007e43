"""The demo: a real model, our own quiz, the harness's real path, and what the numbers mean in plain words."""

import shlex
from pathlib import Path
from typing import Any

from lm_eval_calibration.demo.model import MissingModelError, gguf_file, local_gguf_file, model_arguments

__all__ = ["MissingModelError", "evaluate_quiz", "gguf_file", "local_gguf_file", "model_arguments", "run"]


def run(
    limit: int | None = None,
    output_path: Path | None = None,
    *,
    model: str | None = None,
    verbosity: str | None = None,
) -> dict[str, Any]:
    """Ask a model the quiz, print the harness's table and what it means; return the results.

    Args:
        limit: questions of each part; None for all.
        output_path: folder for the run's results and samples; None keeps none.
        model: a folder, a GGUF file or a name on the hub; None for SmolLM2-135M-Instruct.
        verbosity: level of everything that the harness logs, such as "DEBUG"; None for what people need.

    Raises:
        UserError: no model at that path, or none that can be had.
    """
    from rich.console import Console

    from lm_eval_calibration.harness.terminal import for_people, set_verbosity

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    arguments = model_arguments(model, console.print)
    name, minutes = model or "SmolLM2-135M-Instruct", "" if model else " (about a minute on two CPU cores)"
    console.print(f"Asking {name} our quiz{minutes}")
    with for_people(verbosity is None) as kept:
        if verbosity is not None:
            set_verbosity(verbosity)
        results, file = evaluate_quiz(arguments, limit, output_path)
        _show(results)
        kept.messages.clear()  # what to make of the quiz's numbers is said below the table
    console.print(f"Next: {_what_next(file)}")
    return results


def _show(results: dict[str, Any]) -> None:
    from lm_eval import utils
    from rich.console import Console

    from lm_eval_calibration.demo.words import explain

    print(utils.make_table(results))
    explain(results["samples"], Console(soft_wrap=True))


def _what_next(file: Path | None) -> str:
    if file is not None:
        return f"lm-eval-calibration report {shlex.quote(str(file))} --output report.html"
    return "your own questions: lm-eval-calibration run --csv FILE --model hf --model_args pretrained=MODEL"


def evaluate_quiz(
    model_args: dict[str, Any], limit: int | None = None, output_path: Path | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Run the quiz on a model of the harness's ``hf`` backend; return the harness's results, and the file of them."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_calibration.backends.hf.gguf_files import read_once
    from lm_eval_calibration.demo.quiz import quiz_group
    from lm_eval_calibration.harness.command import DEVICE
    from lm_eval_calibration.harness.numbers import results_file
    from lm_eval_calibration.tasks import CalibrationTaskManager

    tracker = None if output_path is None else EvaluationTracker(output_path=str(output_path))
    with read_once(model_args):
        results: dict[str, Any] = simple_evaluate(
            model="hf",
            model_args=model_args,
            device=DEVICE,
            tasks=[quiz_group()],
            task_manager=CalibrationTaskManager(include_defaults=False),
            batch_size=16,
            limit=limit,
            log_samples=True,
            bootstrap_iters=1,  # only switches standard errors on; ours are closed forms or draw 1,000 times
            evaluation_tracker=tracker,
        )
    if tracker is None:
        return results, None
    samples = results["samples"]  # as the harness's command does
    tracker.save_results_aggregated({k: v for k, v in results.items() if k != "samples"}, samples=samples)
    for task, lines in samples.items():
        tracker.save_results_samples(task_name=task, samples=lines)
    return results, results_file(tracker)
