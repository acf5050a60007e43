"""The model card of an adapter: what it learned from, how, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_calibration import __version__
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.tuning.grading import Graded, Written
from lm_eval_calibration.tuning.questions import TaskQuestions
from lm_eval_calibration.tuning.settings import Grading, Protocol

VALIDATION_HEADS = ("epoch", "AUROC ↑", "ECE ↓", "NLL ↓", "accuracy, less before")

_WRITTEN = (
    "(An answer that the model writes is not written anew for this: it counts as right if it was, and at each of its "
    "tokens the most probable one is what it was. Where it ends is not looked at.)"
)


def card(
    grading: Grading,
    protocol: Protocol,
    asked: Sequence[TaskQuestions],
    found: Sequence[Graded],
    validations: Sequence[Mapping[str, float]],
    *,
    how: Mapping[str, Any],
    commands: Sequence[str],
) -> str:
    """Return the card as Markdown with its metadata.

    Args:
        grading: what was graded.
        protocol: how it was trained.
        asked: the docs.
        found: the answers that are right or wrong.
        validations: the untuned model's first.
        how: settings of the training beside the protocol.
        commands: what judges the adapter.
    """
    data = [
        f"| {markdown(task.task)} | {markdown(task.split)} | {_count(task, found, False)} | "
        f"{_count(task, found, True)} | {len(task.parts.judged)} | {task.parts.n_duplicates} | {task.n_broken} | "
        f"{len(task.questions) - _count(task, found, False) - _count(task, found, True)} |"
        for task in asked
    ]
    settings = {**protocol.to_dict(), **how}
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {json_string(grading.model)}",
        "tags: [calibration, lora]",
        "---",
        "",
        f"# {markdown(grading.model)}, tuned to know whether its answers are right",
        "",
        f"Made by lm-eval-calibration {__version__} (`lm-eval-calibration tune`) after Kapoor et al. 2024, "
        "[arXiv:2406.08391](https://arxiv.org/abs/2406.08391). The model's own answers were graded; it learned to say "
        "how likely they are right when asked, and to leave the answers as they were.",
        "",
        "## Data",
        "",
        "| task | split | learned from | held out | left to judge | duplicates left out | without gold label "
        "| neither right nor wrong |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *data,
        "",
        _how_split(grading),
        "",
        "## Protocol",
        "",
        *(f"- {markdown(name.replace('_', ' '))}: {markdown(_shown(value))}" for name, value in settings.items()),
        "",
        "## Before and after, on the held-out docs",
        "",
        "P(right) of the base model's answers: does it tell right from wrong (AUROC), is it as high as they are often "
        "right (ECE, 10 bins), negative log-likelihood in nats; and how the accuracy of the answers has changed. These "
        "docs chose the epoch that was kept, so judge the adapter on others:",
        "",
        *([_WRITTEN, ""] if any(isinstance(g, Written) for g in found) and protocol.trains else []),
        f"| {' | '.join(VALIDATION_HEADS)} |",
        "|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows(validations)),
        "",
        *([warning, ""] if (warning := no_gain(validations)) else []),
        "## How to judge it",
        "",
        "```sh",
        *commands,
        "```",
        "",
    ]
    return "\n".join(lines)


def rows(validations: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Return the validations as cells, without the signs of rounding."""
    return [
        [
            "untuned" if number == 0 else f"{found['epoch']:.2f}",
            *(f"{found[name]:.4f}" for name in ("auroc", "ece", "nll")),
            f"{found['accuracy_drift'] + 0.0:+.4f}",
        ]
        for number, found in enumerate(validations)
    ]


def no_gain(validations: Sequence[Mapping[str, float]]) -> str:
    """Say that what was kept does no better than the untuned model, where that is so."""
    before, after = validations[0]["nll"], min(found["nll"] for found in validations[1:])
    if after < before:
        return ""
    return (
        f"No gain: on the held-out docs the negative log-likelihood is {after:.4f} after and {before:.4f} before. "
        "More docs, a smaller learning rate or larger steps may help; or the model can't tell which of its answers are "
        "right."
    )


def json_string(text: str) -> str:
    """Text for YAML, whatever is in it."""
    import json

    return json.dumps(text, ensure_ascii=False)


def _count(task: TaskQuestions, found: Sequence[Graded], held_out: bool) -> int:
    return sum(g.question.task == task.task and g.question.held_out == held_out for g in found)


def _how_split(grading: Grading) -> str:
    if grading.fit_fraction is None:
        return "Docs that the evaluated split holds too were taken out of the training split."
    return (
        f"The evaluated docs were split by a hash of their prompt and choices: {grading.fit_fraction:g} of them to "
        "learn from, the others to judge. A doc is never in both, nor are lines of one program."
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "PEFT's own choice"
    return str(value)
