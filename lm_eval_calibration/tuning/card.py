"""The model card of an adapter: its data, its training, and its validation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lm_eval_calibration import __version__
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.tuning.questions import Answer, OpenQuestion, TaskQuestions
from lm_eval_calibration.tuning.settings import GradingSettings, Protocol

VALIDATION_HEADS = ("epoch", "AUROC ↑", "ECE ↓", "NLL ↓", "accuracy, less before")

_CARD = """---
library_name: peft
base_model: {base_model}
tags: [calibration, lora]
---

# {name}, tuned to know whether its answers are right

Made by lm-eval-calibration {version} (`lm-eval-calibration tune`) after Kapoor et al. 2024, \
[arXiv:2406.08391](https://arxiv.org/abs/2406.08391). The model's own answers were graded; it learned to say how \
likely they are right when asked, and to leave the answers as they were.

## Data

| task | split | learned from | held out | left to test on | duplicates left out | without gold label \
| neither right nor wrong |
|---|---|---:|---:|---:|---:|---:|---:|
{data}

{splitting}

## Protocol

{settings}

## Before and after, on the held-out docs

P(right) of the base model's answers: does it tell right from wrong (AUROC), is it as high as they are often right \
(ECE, 10 bins), negative log-likelihood in nats; and how the accuracy of the answers has changed. These docs chose the \
epoch that was kept, so test the adapter on others:

{open_answers}| {heads} |
|---:|---:|---:|---:|---:|
{validations}

{no_gain}## How to test it

```sh
{commands}
```
"""

_OPEN_ANSWERS = (
    "(An answer that the model writes is not written anew for this: it counts as right if it was, and at each of its "
    "tokens the most probable one is what it was. Where it ends is not looked at.)\n\n"
)


def card(
    grading: GradingSettings,
    protocol: Protocol,
    tasks: Sequence[TaskQuestions],
    answers: Sequence[Answer],
    validations: Sequence[Mapping[str, float]],
    *,
    details: Mapping[str, Any],
    commands: Sequence[str],
) -> str:
    """Return the card as Markdown with its metadata.

    Args:
        grading: what was graded.
        protocol: how the adapter was trained.
        tasks: those learned from.
        answers: the answers that are right or wrong.
        validations: the untuned model's first.
        details: settings of the training beside the protocol.
        commands: those that test the adapter.
    """
    has_open = protocol.trains and any(isinstance(answer.question, OpenQuestion) for answer in answers)
    warning = no_gain(validations)
    settings = {**asdict(protocol), **details}
    return _CARD.format(
        base_model=json.dumps(grading.model, ensure_ascii=False),  # a string of YAML, too
        name=markdown(grading.model),
        version=__version__,
        data="\n".join(_data_row(task, answers) for task in tasks),
        splitting=_splitting(grading),
        settings="\n".join(
            f"- {markdown(name.replace('_', ' '))}: {markdown(_shown(value))}" for name, value in settings.items()
        ),
        open_answers=_OPEN_ANSWERS if has_open else "",
        heads=" | ".join(VALIDATION_HEADS),
        validations="\n".join(f"| {' | '.join(row)} |" for row in rows(validations)),
        no_gain=f"{warning}\n\n" if warning else "",
        commands="\n".join(commands),
    )


def rows(validations: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Return the validations as cells, without the signs of rounding."""
    return [
        [
            "untuned" if number == 0 else f"{values['epoch']:.2f}",
            *(f"{values[name]:.4f}" for name in ("auroc", "ece", "nll")),
            f"{values['accuracy_drift'] + 0.0:+.4f}",
        ]
        for number, values in enumerate(validations)
    ]


def no_gain(validations: Sequence[Mapping[str, float]]) -> str:
    """Return a warning where the adapter that was kept does no better than the untuned model, else an empty text."""
    before, after = validations[0]["nll"], min(values["nll"] for values in validations[1:])
    if after < before:
        return ""
    return (
        f"No gain: on the held-out docs the negative log-likelihood is {after:.4f} after and {before:.4f} before. "
        "More docs, a smaller learning rate or larger steps may help; or the model can't tell which of its answers are "
        "right."
    )


def _data_row(task: TaskQuestions, answers: Sequence[Answer]) -> str:
    held_out = [answer.question.held_out for answer in answers if answer.question.task == task.task]
    counts = (
        *(held_out.count(False), held_out.count(True), len(task.split.test)),
        *(task.split.n_duplicates, task.n_broken, len(task.questions) - len(held_out)),
    )
    return f"| {markdown(task.task)} | {markdown(task.split_name)} | {' | '.join(map(str, counts))} |"


def _splitting(grading: GradingSettings) -> str:
    if grading.fit_fraction is None:
        return "Docs that the evaluated split holds too were taken out of the training split."
    return (
        f"The evaluated docs were split by a hash of their prompt and choices: {grading.fit_fraction:g} of them to "
        "learn from, the others to test on. A doc is never in both, nor are lines of one program."
    )


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "PEFT's own choice"
    return str(value)
