"""Docs: their hashes, and of docs with choices which one is right and what may be wrong with them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.utils import handle_non_serializable, hash_string

BROKEN = -100
"""The harness's mark of a gold label that is known to be broken."""


def doc_hash(doc: Any) -> str:
    """Return the harness's own hash of a doc."""
    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def problem_of_choices(task: Any, doc: dict[str, Any], *, labels_too: bool) -> str | None:
    """Return why a multiple-choice doc can't be used, or not with its label where that matters; None where it can."""
    text, choices, target = task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)
    if not isinstance(text, int if task.multiple_input else str):
        return f"doc_to_text gives {text!r}, not a text"
    if problem := bad_choices(choices):
        return problem
    if isinstance(target, list | tuple | np.ndarray):
        return f"doc_to_target gives several gold answers, {target!r}; calibration needs exactly one"
    if not labels_too:
        return None
    if "" in choices:
        return f"doc_to_choice gives an empty text as choice {choices.index('')}"
    return (
        _bad_gold(text, choices, "doc_to_text") if task.multiple_input else _bad_gold(target, choices, "doc_to_target")
    )


def gold_index(gold: Any, choices: Sequence[str]) -> int | None:
    """Return the gold choice's index as the harness reads it, or None for a broken label (it then counts -100)."""
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return int(gold) if isinstance(gold, int | np.integer) and 0 <= gold < len(choices) else None


def bad_choices(choices: Any) -> str | None:
    """Return why choices can't be scored; None where they can."""
    if not isinstance(choices, list | tuple):
        return f"doc_to_choice gives {choices!r}, not a list of texts"
    if not choices:
        return "doc_to_choice gives no choices"
    for index, choice in enumerate(choices):
        if not isinstance(choice, str):
            return f"doc_to_choice gives {choice!r} as choice {index}, not a text"
    return None


def _bad_gold(gold: Any, choices: Sequence[str], field: str) -> str | None:
    """Return why a gold label is none of the choices; None where it is one, or is marked as broken."""
    if gold_index(gold, choices) is not None or (isinstance(gold, int | np.integer) and gold == BROKEN):
        return None
    shown = f"0 to {len(choices) - 1}" if isinstance(gold, int | np.integer) else ", ".join(map(repr, choices[:6]))
    hint = "; an index must be a whole number, not a float" if isinstance(gold, float) else ""
    hint = (
        "; in doc_to_text a number is the index of the right one of several inputs"
        if field != "doc_to_target"
        else hint
    )
    return f"{field} gives {gold!r}; the choices are {shown}{hint}"


def usable_log_likelihoods(answers: Sequence[Any]) -> tuple[float, ...]:
    """Return the log-likelihoods of a doc's choices; all minus infinity where one is nan or infinite.

    (Minus infinity is a probability of 0. The harness's own log has what the backend returned.)
    """
    values = tuple(float(answer[0]) for answer in answers)
    return values if all(value < float("inf") for value in values) else (-float("inf"),) * len(values)


def answer_of(log_likelihoods: Sequence[float]) -> int:
    """Return the model's answer: the index of the most probable choice, the first of equals, as the harness counts."""
    return int(np.argmax(log_likelihoods))
