"""What a logged doc says in words: its question, the model's answer, the right one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.results import Sample


class Texts(NamedTuple):
    """The texts of a doc; None where none was logged.

    Attributes:
        question: the prompt.
        answer: the choice that the model prefers, or the text that it wrote.
        right: the right choice, or the task's target.
        choices: all choices, in the order of their log-likelihoods; empty for written answers.
    """

    question: str | None = None
    answer: str | None = None
    right: str | None = None
    choices: tuple[str, ...] = ()


def texts_of(sample: Sample) -> Texts:
    """Return what was logged; a redacted run logged nothing."""
    record, requests = sample.record, _requests(sample.line)
    if sample.line.get("doc") is None and not requests:
        return Texts()
    if not isinstance(record, ChoicesRecord):
        question = requests[0][0] if requests else None
        return Texts(_plain(question), _plain(_first(sample.line.get("resps"))), _plain(sample.line.get("target")))
    if not requests:
        return Texts()
    if len(requests) < len(record.log_likelihoods):  # which text is which choice nobody can tell
        return Texts(_plain(requests[0][0]))
    choices_are_prompts = len({str(text) for _, text in requests}) == 1
    of_choices = requests[: len(record.log_likelihoods)]  # other orders of the choices come after
    choices = tuple(_plain(row[0 if choices_are_prompts else 1]) or "" for row in of_choices)
    best, gold = record.answer, record.gold
    right = choices[gold] if gold is not None and gold < len(choices) else None
    answer = choices[best] if best < len(choices) else None
    return Texts(_plain(requests[min(best, len(requests) - 1)][0]), answer, right, choices)


def without_examples(questions: Sequence[str | None]) -> list[str | None]:
    """Return the prompts of a task without the lines that all of them begin with: instructions and examples.

    A prompt that is alone, or like all others, stays whole.
    """
    different = {text for text in questions if text}
    first, last = min(different, default=""), max(different, default="")  # what these two share is shared by all
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    cut = first.rfind("\n", 0, shared) + 1
    return [text[cut:] if text else text for text in questions]


def shortened(text: str | None, length: int, *, keep: str) -> str | None:
    """Return a text of at most about ``length`` characters; ``keep`` says which end matters: "start" or "end"."""
    if text is None or len(text) <= length:
        return text
    return f"{text[:length]}…" if keep == "start" else f"…{text[-length:]}"


def _requests(line: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    arguments = line.get("arguments")
    rows = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    if not isinstance(rows, list | tuple):
        return []
    rows = [list(row.values()) if isinstance(row, Mapping) else row for row in rows]
    return [(row[0], row[1]) for row in rows if isinstance(row, list | tuple) and len(row) > 1]


def _first(responses: Any) -> Any:
    while isinstance(responses, list | tuple) and responses:
        responses = responses[0]
    return responses


def _plain(text: Any) -> str | None:
    return None if text is None else str(text).strip()
