"""``lm-eval-calibration tune``: grade the model's answers, train, keep the adapter, say how to judge it."""

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
from lm_eval_calibration.tuning.settings import Grading, Protocol

JUDGED = "judged.json"

SUFFIXES = ("_p_true_calibration", "_calibration")
"""Of the names of the tasks that judge: P(true) beside the plain confidence, and that alone."""


def tune(
    grading: Grading,
    protocol: Protocol,
    output: Path,
    *,
    graded: Path | None,
    n_test: int | None,
    device: str | None,
) -> None:
    """Tune a model, or go on with a run of the same settings that was broken off.

    Args:
        grading: what to learn from.
        protocol: how.
        output: folder for the adapter, its card, the grades and checkpoints.
        graded: folder or file of another run whose grades are used.
        n_test: docs of each task to test on at most; all where None.
        device: of the model; a GPU where there is one, if not given.

    Raises:
        UserError: naming what can't be used, and what to do.
    """
    try:
        import accelerate
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(f"tuning needs pip install 'lm-eval-calibration[tuning]' ({error.name} is missing)") from error

    from lm_eval_calibration.tuning import grading as answers
    from lm_eval_calibration.tuning.model import load
    from lm_eval_calibration.tuning.questions import ask, judged_samples

    state = accelerate.PartialState(cpu=device == "cpu")
    if state.is_main_process:
        settings.check_free(output, grading, protocol)
    lm = load(grading, device, protocol.batch_size)
    asked = ask(grading, protocol.query, lm)
    if state.is_main_process:
        write_whole(output / JUDGED, json.dumps(judged_samples(asked, SUFFIXES, n_test)) + "\n")
        for task in asked:
            n_held_out = sum(question.held_out for question in task.questions)
            _say(
                f"{task.task}: {len(task.questions)} docs of its split {task.split!r} to learn from, {n_held_out} of "
                f"them held out; {len(task.parts.judged)} others to judge; {task.parts.n_duplicates} duplicates and "
                f"{task.n_broken} docs without a gold label left out"
            )
    questions = [question for task in asked for question in task.questions]
    found = _known(grading, questions, graded, output) or answers.grade(lm, questions)
    state.wait_for_everyone()  # nobody looks for the file any more
    if state.is_main_process:
        answers.write(output / answers.FILE, grading.of_answers, found)
    found, n_between = answers.right_or_wrong(found)
    if state.is_main_process:
        share = sum(g.correct == 1 for g in found) / max(1, len(found))
        between = f"; {n_between} answers, neither right nor wrong, left out" if n_between else ""
        _say(f"the model answers {share:.1%} of {len(found)} right{between}")
    answers.check(found)
    validations, how = _train(lm, found, grading, protocol, output)
    if state.is_main_process:
        commands = _commands(grading, protocol, output)
        page = card.card(grading, protocol, asked, found, validations, how=how, commands=commands)
        write_whole(output / "README.md", page)
        settings.write(output, grading, protocol, {"validation": validations, **how})
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        _report(validations, output, commands)
    state.wait_for_everyone()


def _known(grading: Grading, questions: Sequence[Any], graded: Path | None, output: Path) -> list[Any] | None:
    """Return the grades of another run, or those that this one wrote before it was broken off, if it has all."""
    from lm_eval_calibration.tuning import grading as answers

    if graded is not None:
        path = graded / answers.FILE if graded.is_dir() else graded
        return answers.read(path, grading.of_answers, questions)
    try:
        return answers.read(output / answers.FILE, grading.of_answers, questions)
    except UserError:
        return None


def _train(
    lm: Any, found: Sequence[Any], grading: Grading, protocol: Protocol, output: Path
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train by the method asked for, save what came of it, return the validations and what else was set."""
    from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
    from lm_eval_calibration.tuning import adapter, training
    from lm_eval_calibration.tuning.examples import make_examples
    from lm_eval_calibration.tuning.forward import Forward
    from lm_eval_calibration.tuning.probe import train_probe

    examples = make_examples(found, QUERIES[protocol.query], lm)
    forward = Forward(lm, examples.fit[0].rows[0].tokens)
    if protocol.method == "probe":
        return train_probe(lm.model, forward, examples, protocol, output)
    model = adapter.with_adapter(lm.model, protocol)
    settings.write(output, grading, protocol)
    trainer = training.make_trainer(model, forward, examples, protocol, output / training.CHECKPOINTS)
    validations = training.train(trainer, output / training.CHECKPOINTS)
    if trainer.is_world_process_zero():
        adapter.save(trainer.accelerator.unwrap_model(trainer.model), output)
    return validations, training.how(trainer)


def _commands(grading: Grading, protocol: Protocol, output: Path) -> list[str]:
    """Commands that judge the model without and with its adapter, on docs that it has not learned from."""
    if protocol.method == "probe":
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
                *("--samples", str(output / JUDGED), *options, "--output_path", str(output / name)),
            ]
        )
        for name, model_args in (("untuned", arguments), ("tuned", f"{arguments},peft={output}"))
    ]


def _report(validations: Sequence[Mapping[str, float]], output: Path, commands: Sequence[str]) -> None:
    _say("on the held-out docs (whose NLL chose what was kept):")
    table = [list(card.VALIDATION_HEADS), *card.rows(validations)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        typer.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if warning := card.no_gain(validations):
        _say(warning)
    _say(f"kept in {output}")
    if commands:
        _say("judge it on the docs that it has not learned from:")
        for command in commands:
            typer.echo(command)


def _say(line: str) -> None:
    typer.echo(line)
