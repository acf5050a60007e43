"""Samples of a stock run, which hold no record of ours: multiple-choice ones have the log-likelihoods of the choices.

A record is made of them without running the model again, after the harness's own ``acc`` has agreed: where the most
probable choice and the gold one as read here give another ``acc`` than the line says, nothing is read.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import ChoicesRecord

AS_INDEX, AS_TEXT = "an index", "the text of a choice"
"""What a ``target`` can be; where all choices are numbers, only ``acc`` tells which."""


class StockError(UserError):
    """Others' samples, sound, but none that can be calibrated; the message names the line, with no text of a doc."""


class _Answers(NamedTuple):
    """What a line of a stock run says.

    Attributes:
        log_likelihoods: of the choices, in nats.
        choices: their texts, as they were scored, less the blank before each of them.
        target: the gold label as it was logged.
        are_inputs: whether the choices are several prompts with one continuation (Winogrande's way).
        acc: 0 or 1 as the harness counted; None where the line has none.
        acc_norm: the same of the length-normalised answer.
    """

    log_likelihoods: tuple[float, ...]
    choices: tuple[str, ...]
    target: Any
    are_inputs: bool
    acc: int | None
    acc_norm: int | None


def find_reading(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Decide what the ``target`` of a task's lines is: an index, or the text of a choice.

    Args:
        lines: location and content of each.

    Raises:
        StockError: naming the line: no multiple choice, no way of reading that agrees with the harness's ``acc``, or
            both do and differ.
    """
    refuted: dict[str, str] = {}
    differ = ""
    for location, line in lines:
        try:
            answers = _parse(line)
            golds = {reading: _gold(answers, reading) for reading in (AS_INDEX, AS_TEXT)}
        except StockError as error:
            raise StockError(f"{location}: {error}") from None
        for reading, gold in golds.items():
            if problem := _contradiction(answers, gold):
                refuted.setdefault(reading, f"{location}: {problem}")
        if len(refuted) == len(golds):
            raise StockError(refuted[AS_INDEX])
        if golds[AS_INDEX] != golds[AS_TEXT]:
            differ = differ or location
    if differ and not refuted:
        raise StockError(f"{differ}: the target may be an index or a text, and the harness's acc does not tell which")
    return AS_TEXT if AS_INDEX in refuted else AS_INDEX


def record(line: Mapping[str, Any], task: str, reading: str) -> ChoicesRecord:
    """Return the record of a line that :func:`find_reading` has seen."""
    answers, prompt = _parse(line), _requests(line)[0][0]
    doc_id = line.get("doc_id")
    return ChoicesRecord(
        task=task,
        doc_id=doc_id if isinstance(doc_id, int) else None,
        doc_hash=str(line.get("doc_hash") or _hash(json.dumps(line.get("doc"), indent=2, ensure_ascii=False))),
        prompt_hash=str(line.get("prompt_hash") or _hash(prompt)),
        log_likelihoods=answers.log_likelihoods,
        gold=_gold(answers, reading),
        choice_lengths=tuple(map(len, answers.choices)),
        certificate={"source": "samples of a stock run", "distributions": "none"},
    )


def _parse(line: Mapping[str, Any]) -> _Answers:
    requests, log_likelihoods = _requests(line), _log_likelihoods(line)
    if "acc_mutual_info" in line:  # asks for the choices without a prompt too, after these
        requests, log_likelihoods = requests[: len(requests) // 2], log_likelihoods[: len(log_likelihoods) // 2]
    if len(log_likelihoods) < 2 or len(log_likelihoods) != len(requests):
        raise StockError(f"{len(log_likelihoods)} log-likelihoods of {len(requests)} requests: not multiple choice")
    continuations = [continuation for _, continuation in requests]
    delimiter = " " if all(text.startswith(" ") for text in continuations) else ""
    return _Answers(
        tuple(log_likelihoods),
        tuple(text.removeprefix(delimiter) for text in continuations),
        line.get("target"),
        len(set(continuations)) == 1 and len({prompt for prompt, _ in requests}) > 1,
        _accuracy(line, "acc"),
        _accuracy(line, "acc_norm"),
    )


def _gold(answers: _Answers, reading: str) -> int | None:
    """Index of the gold choice; None for a broken label."""
    if answers.are_inputs:  # the target is the continuation: acc alone tells, as long as there are two
        if len(answers.choices) > 2 or answers.acc is None:
            raise StockError("which of several prompts is the right one is not logged")
        best = int(np.argmax(answers.log_likelihoods))
        return best if answers.acc else 1 - best
    text = str(answers.target)
    index = int(text) if text.removeprefix("-").isdecimal() else None
    of_text = next((i for i, choice in enumerate(answers.choices) if text.strip() == choice.strip()), None)
    if index is not None and (reading == AS_INDEX or of_text is None):
        return index if 0 <= index < len(answers.choices) else None
    if of_text is None and text.startswith("["):
        raise StockError("its target is a list: several gold answers can't be calibrated")
    return of_text


def _contradiction(answers: _Answers, gold: int | None) -> str | None:
    """Say where the harness's own accuracy is another than that of these log-likelihoods and this gold choice."""
    name, counted, by = "acc", answers.acc, np.asarray(answers.log_likelihoods)
    if counted is None and answers.acc_norm is not None and all(answers.choices):
        name, counted, by = "acc_norm", answers.acc_norm, by / np.array([len(choice) for choice in answers.choices])
    found = int(gold is not None and int(np.argmax(by)) == gold)
    if counted is None:
        return None if gold is not None else "its target is none of the choices"
    if counted == found:
        return None
    return f"{name} is {counted}, but by the log-likelihoods and the target it is {found}"


def _requests(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Prompt and continuation of each request: pairs, or the mappings that newer versions of the harness write."""
    requests: Any = line.get("arguments") or ()
    if isinstance(requests, Mapping):
        requests = [list(one.values()) if isinstance(one, Mapping) else None for one in requests.values()]
    are_pairs = isinstance(requests, list | tuple) and all(
        isinstance(one, list | tuple) and len(one) >= 2 and isinstance(one[0], str) and isinstance(one[1], str)
        for one in requests
    )
    if not are_pairs:
        first = requests[0] if isinstance(requests, list | tuple) else None
        if isinstance(first, list | tuple) and first and isinstance(first[-1], Mapping):
            raise StockError("its answers were generated, and of them only its _calibration task logs probabilities")
        raise StockError("its requests are not prompts with continuations: not multiple choice")
    return [(one[0], one[1]) for one in requests]


def _log_likelihoods(line: Mapping[str, Any]) -> list[float]:
    """Of each request: numbers, or the strings that newer versions write; the first of repeats."""
    responses = line.get("resps")
    try:
        values = [float(response[0][0]) for response in responses or () if isinstance(response[0], list)]
    except (TypeError, IndexError, KeyError, ValueError):
        values = []
    if not values or not isinstance(responses, list) or len(values) != len(responses):
        raise StockError("its responses are not log-likelihoods: not multiple choice")
    if not max(values) < math.inf or any(math.isnan(value) for value in values):
        raise StockError(f"its log-likelihoods are {values}")
    return values


def _accuracy(line: Mapping[str, Any], name: str) -> int | None:
    value = line.get(name)
    if value is None:
        return None
    if value not in (0, 1):
        shown = value if isinstance(value, int | float) else f"of type {type(value).__name__}"
        raise StockError(f"{name} is {shown}, not 0 or 1: this task is scored differently")
    return int(value)


def _hash(text: str) -> str:
    """The harness's hash."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
