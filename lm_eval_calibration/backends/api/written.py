"""What a server wrote: the text, its tokens and their log-probabilities, and the thought before it, read strictly."""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from lm_eval_calibration.backends.answer_types import Floats, GeneratedText
from lm_eval_calibration.backends.tokens import ends_of_pieces, span_of_pieces
from lm_eval_calibration.backends.top_k import checked_log_prob
from lm_eval_calibration.backends.written import is_open_thought

FIELDS = ("reasoning_content", "reasoning")
"""Names under which servers return a thought, beside ``content``."""

MISSING = -9999.0
"""Stands for a log-probability that a server leaves out."""

_BETWEEN = re.compile(r"(?:\s|<[^<>\n]{1,40}>)*")
"""What may stand between a thought and the content: blanks and marks such as ``</think>``."""


def reasoning_of(choice: Mapping[str, Any]) -> str:
    """Return the thought that a server returns beside the content; "" where it returns none."""
    message = choice.get("message") or {}
    return next((message[name] for name in FIELDS if isinstance(message.get(name), str) and message[name]), "")


def content_of(choice: Mapping[str, Any]) -> str | None:
    """Return the text of a choice of a chat or completions response; None where it has none."""
    content = choice["text"] if "text" in choice else (choice.get("message") or {}).get("content")
    return content if isinstance(content, str) else None


def written_text(choice: Mapping[str, Any], text: str) -> GeneratedText:
    """Return a text with what the server tells of its tokens; without probabilities where it has other tokens.

    Args:
        choice: of a completions or chat response.
        text: what the harness made of it.

    Raises:
        ValueError: log-probabilities are missing, too few, not numbers or above 0: missing ones are never p = 1.
    """
    pieces, values = _tokens(choice)
    content, reasoning = content_of(choice) or "", reasoning_of(choice)
    if len(pieces) != len(values):
        raise ValueError(f"the server's answer has {len(pieces)} tokens and {len(values)} log-probabilities")
    if text and content and not pieces:
        raise ValueError("the server's answer has no log-probabilities of its tokens")
    log_probs = np.array([_log_prob(v, i, p) for i, (p, v) in enumerate(zip(pieces, values, strict=True))], float)
    finish = choice.get("finish_reason")
    attributes: dict[str, Any] = {
        "finish_reason": finish if finish in ("length", "stop") else None,
        "thought_is_open": bool(reasoning and not content) or is_open_thought("", text),
        "has_content": content_of(choice) is not None,
    }
    if not text or not content:  # no content: the text stands for it
        known = _of_thought(pieces, log_probs, reasoning, 0) if reasoning else {}
        return GeneratedText(text, token_log_probs=np.zeros(0), **attributes, **known)
    return GeneratedText(text, **attributes, **_of_answer(pieces, log_probs, reasoning, content, text))


def _tokens(choice: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Return the texts and the log-probabilities of the tokens that a server lists."""
    found = choice.get("logprobs") or {}
    if "content" in found:
        entries = found["content"] or ()
        return [str(entry.get("token", "")) for entry in entries], [entry.get("logprob") for entry in entries]
    return found.get("tokens") or [], found.get("token_logprobs") or []


def _log_prob(value: Any, number: int, piece: str) -> float:
    if value == MISSING:
        raise ValueError(f"the log-probability of token {number}, {piece!r} is {value}, which stands for none")
    return checked_log_prob(value, f"token {number}, {piece!r}")


def _of_answer(pieces: Sequence[str], log_probs: Floats, reasoning: str, content: str, text: str) -> dict[str, Any]:
    """Return what is known of the tokens of text and thought; {} where the tokens are others."""
    emitted, first, thought = "".join(pieces), 0, content[: len(content) - len(text)].rstrip()  # what the harness took
    if reasoning:
        thought = reasoning.strip()
        start = content_after(emitted, thought, content)
        if start is None and not emitted.startswith(content):
            return {}  # tokens that read as the content may be the thought's
        first = tokens_between(pieces, start, start + len(content)).start if start else 0
    span = span_of_pieces(pieces[first:], content, text)
    if span is None:
        return {}
    answer = slice(first + span.start, first + span.stop)
    first_char = emitted.find(content, len("".join(pieces[:first]))) + len(content) - len(text)
    return {
        "token_log_probs": log_probs[answer],
        "token_ends": _ends(pieces, answer, first_char, text),
        **_of_thought(pieces, log_probs, thought, answer.start),
    }


def _of_thought(pieces: Sequence[str], log_probs: Floats, thought: str, stop: int) -> dict[str, Any]:
    """Return what is known of a thought, whose tokens may be some of the first ``stop``."""
    thought = thought.strip()
    begin = "".join(pieces[: stop or None]).find(thought) if thought else -1
    if begin < 0:
        return {"thought": thought}
    tokens = tokens_between(pieces, begin, begin + len(thought))
    return {
        "thought": thought,
        "thought_log_probs": log_probs[tokens],
        "thought_ends": _ends(pieces, tokens, begin, thought),
    }


def _ends(pieces: Sequence[str], tokens: slice, first_char: int, text: str) -> Any:
    """Return ``token_ends`` of a text that begins at a character of the joined pieces."""
    return ends_of_pieces(pieces[tokens], first_char - len("".join(pieces[: tokens.start])), text)


def content_after(emitted: str, thought: str, content: str) -> int | None:
    """Return where the content begins in all that was emitted, after the thought and what closes it.

    Servers differ in whether the tokens of the thought are among those that they list. None where the thought is not
    there, or the content does not follow it.
    """
    begin = emitted.find(thought)
    if begin < 0:
        return None
    end = begin + len(thought)
    between = _BETWEEN.match(emitted, end)
    start = (between.end() if between else end) - (len(content) - len(content.lstrip()))
    if start >= end and emitted.startswith(content, start):
        return start
    return emitted.index(content, end) if emitted.count(content, end) == 1 else None  # other marks


def tokens_between(pieces: Sequence[str], start: int, stop: int) -> slice:
    """Return the tokens of which a character stands from ``start`` to ``stop`` in the joined pieces."""
    ends = list(accumulate(map(len, pieces)))
    first = next((i for i, end in enumerate(ends) if end > start), len(ends))
    last = next((i + 1 for i, end in enumerate(ends) if end >= stop), len(ends))
    return slice(first, max(first, last))
