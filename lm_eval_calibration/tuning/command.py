"""``lm-eval-calibration tune``: grade the model's answers, train, save the adapter, print how to test it."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.tuning import card, settings
from lm_eval_calibration.tuning.settings import GradingSettings, Protocol

TEST_SAMPLES = "judged.json"

SUFFIXES = ("_p_true_calibration", "_calibration")
"""Of the names of the tasks that test: P(true) beside the plain confidence, and that alone."""


def tune(
    grading: GradingSettings,
    protocol: Protocol,
    output: Path,
    *,
    graded: Path | None,
    n_test: int | None,
    device: str | None,
) -> None:
    """Tune a model, or resume an interrupted run of the same settings; the adapter and all about it go to ``output``.

    Raises:
        UserError: naming what can't be used, and what to do.
    """
    _require_extra()
    from accelerate import PartialState

    from lm_eval_calibration.tuning.model import load
    from lm_eval_calibration.tuning.questions import load_questions

    state = PartialState(cpu=device == "cpu")
    if state.is_main_process:
        settings.check_output(output, grading, protocol)
    lm = load(grading, device, protocol.batch_size)
    tasks = load_questions(grading, protocol.query, lm)
    if state.is_main_process:
        _write_test_samples(tasks, n_test, output)
    answers = _graded_answers(lm, tasks, grading, graded=graded, output=output)
    validations, details = _train(lm, answers, grading, protocol, output)
    if state.is_main_process:
        commands = _test_commands(grading, protocol, output)
        page = card.card(grading, protocol, tasks, answers, validations, details=details, commands=commands)
        write_whole(output / "README.md", page)
        settings.write(output, grading, protocol, validation=validations, **details)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        _print_result(validations, output, commands)
    state.wait_for_everyone()


def _require_extra() -> None:
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(f"tuning needs pip install 'lm-eval-calibration[tuning]' ({error.name} is missing)") from error


def _write_test_samples(tasks: Sequence[Any], n_test: int | None, output: Path) -> None:
    """Write what the harness's ``--samples`` takes: the docs to test on, under the names of the tasks that test."""
    from lm_eval_calibration.tuning.questions import SUFFIX, docs_to_test_on

    docs = {task.task.removesuffix(SUFFIX): docs_to_test_on(task, n_test) for task in tasks}
    samples = {task + suffix: numbers for task, numbers in docs.items() for suffix in SUFFIXES}
    write_whole(output / TEST_SAMPLES, json.dumps(samples) + "\n")
    for task in tasks:
        n_held_out = sum(question.held_out for question in task.questions)
        typer.echo(
            f"{task.task}: {len(task.questions)} docs of its split {task.split_name!r} to learn from, {n_held_out} of "
            f"them held out; {len(task.split.test)} others to test on; {task.split.n_duplicates} duplicates and "
            f"{task.n_broken} docs without a gold label left out"
        )


def _graded_answers(
    lm: Any, tasks: Sequence[Any], grading: GradingSettings, *, graded: Path | None, output: Path
) -> list[Any]:
    """Return the answers that are right or wrong, kept by another run or an interrupted one of this kind, or new."""
    from accelerate import PartialState

    from lm_eval_calibration.tuning import grading as grades

    questions = [question for task in tasks for question in task.questions]
    path = output if graded is None else graded
    try:
        answers = grades.read(path / grades.FILE if path.is_dir() else path, grading.of_answers, questions)
    except UserError:
        if graded is not None:
            raise
        answers = grades.grade(lm, questions)
    PartialState().wait_for_everyone()  # nobody looks for the file any more
    decided = [answer for answer in answers if answer.correct is not None]
    if PartialState().is_main_process:
        grades.write(output / grades.FILE, grading.of_answers, answers)
        share = sum(answer.correct == 1 for answer in decided) / max(1, len(decided))
        n_between = len(answers) - len(decided)
        between = f"; {n_between} answers, neither right nor wrong, left out" if n_between else ""
        typer.echo(f"the model answers {share:.1%} of {len(decided)} right{between}")
    grades.check_learnable(decided)
    return decided


def _train(
    lm: Any, answers: Sequence[Any], grading: GradingSettings, protocol: Protocol, output: Path
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train by the chosen method, save the outcome, return the validations and details of the training."""
    from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
    from lm_eval_calibration.tuning import adapter, training
    from lm_eval_calibration.tuning.examples import make_examples
    from lm_eval_calibration.tuning.forward import Forward
    from lm_eval_calibration.tuning.probe import train_probe

    examples = make_examples(answers, QUERIES[protocol.query], lm)
    forward = Forward(lm, examples.fit[0].rows[0].tokens)
    if not protocol.trains:
        return train_probe(lm.model, forward, examples, protocol, output)
    model = adapter.with_adapter(lm.model, protocol)
    settings.write(output, grading, protocol)
    trainer = training.make_trainer(model, forward, examples, protocol, output / training.CHECKPOINTS)
    validations = training.train(trainer, output / training.CHECKPOINTS)
    if trainer.is_world_process_zero():
        adapter.save(trainer.accelerator.unwrap_model(trainer.model), output)
    return validations, training.details(trainer)


def _test_commands(grading: GradingSettings, protocol: Protocol, output: Path) -> list[str]:
    """Commands that test the model without and with its adapter, on docs that it has not learned from."""
    if not protocol.trains:
        return []
    arguments = ",".join(filter(None, [f"pretrained={grading.model}", grading.model_args]))
    is_default = protocol.query == Protocol().query  # which has tasks of its own
    suffix, metadata = SUFFIXES[not is_default], json.dumps({"calibration": {"p_true": protocol.query}})
    tasks = ",".join(name.removesuffix("_calibration") + suffix for name in grading.tasks)
    options = [] if is_default else ["--metadata", metadata]
    options += ["--num_fewshot", str(grading.num_fewshot)] if grading.num_fewshot is not None else []
    options += ["--include_path", grading.include_path] if grading.include_path is not None else []
    options += ["--apply_chat_template"] if grading.apply_chat_template else []
    options += ["--confirm_run_unsafe_code"] if grading.confirm_run_unsafe_code else []
    return [
        shlex.join(
            [
                *("lm-eval-calibration", "run", "--model", "hf", "--model_args", model_args, "--tasks", tasks),
                *("--samples", str(output / TEST_SAMPLES), *options, "--output_path", str(output / name)),
            ]
        )
        for name, model_args in (("untuned", arguments), ("tuned", f"{arguments},peft={output}"))
    ]


def _print_result(validations: Sequence[Mapping[str, float]], output: Path, commands: Sequence[str]) -> None:
    typer.echo("on the held-out docs (whose NLL chose what was kept):")
    table = [list(card.VALIDATION_HEADS), *card.rows(validations)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    if warning := card.no_gain(validations):
        lines += [warning]
    lines += [f"saved in {output}"]
    if commands:
        lines += ["test it on the docs that it has not learned from:", *commands]
    typer.echo("\n".join(lines))
