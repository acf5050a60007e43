"""What a server wrote: the text, its tokens and their log-probabilities, and the thought before it, read strictly."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Self

import numpy as np

from lm_eval_calibration.backends.alternatives import means_of_listed
from lm_eval_calibration.backends.answer_types import Floats, GeneratedText, Listed
from lm_eval_calibration.backends.thoughts import is_open_thought
from lm_eval_calibration.backends.tokens import Decode, ends_of_pieces, pieces_of_ids, span_of_pieces
from lm_eval_calibration.backends.top_k import ROUNDING, checked_log_prob

FIELDS = ("reasoning_content", "reasoning")
"""Names under which servers return a thought, beside ``content``."""

MISSING = -9999.0
"""Stands for a log-probability that a server leaves out."""

_ID = re.compile(r"token_id:(\d+)")
"""How vLLM writes tokens as ids."""

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


class _Tokens(NamedTuple):
    """The tokens of a reply as a server lists them."""

    pieces: Sequence[str]
    log_probs: Floats
    listed: Sequence[Listed]  # the most probable tokens at each position; empty where they were not requested
    mean_top_k: Floats | None

    @classmethod
    def read(cls, choice: Mapping[str, Any], k: int, decode: Decode | None) -> Self:
        """Read them, with the ``k`` most probable tokens at each position.

        Raises:
            ValueError: log-probabilities are missing, too few, not numbers or above 0: missing ones are never p = 1.
        """
        pieces, values, tops = _entries(choice)
        if len(pieces) != len(values):
            raise ValueError(f"the server's answer has {len(pieces)} tokens and {len(values)} log-probabilities")
        log_probs = np.array([_log_prob(v, i, p) for i, (p, v) in enumerate(zip(pieces, values, strict=True))], float)
        listed = [_listed(top) for top in tops] if k and len(tops) == len(pieces) else []
        ids = [_ID.fullmatch(piece) for piece in pieces]
        if decode is not None and all(ids):
            pieces = pieces_of_ids([int(found[1]) for found in ids if found], decode)
        return cls(pieces, log_probs, listed, means_of_listed(listed, k) if listed else None)

    @property
    def text(self) -> str:
        """What they spell."""
        return "".join(self.pieces)


def written_text(choice: Mapping[str, Any], text: str, k: int = 0, decode: Decode | None = None) -> GeneratedText:
    """Return a text with what the server tells of its tokens; without probabilities where it has other tokens.

    Args:
        choice: of a completions or chat response.
        text: what the harness made of it.
        k: the most probable tokens that were requested of each position; 0 for none.
        decode: ids to text, where the server may write tokens as ids.

    Raises:
        ValueError: log-probabilities are missing, too few, not numbers or above 0: missing ones are never p = 1.
    """
    tokens = _Tokens.read(choice, k, decode)
    content, reasoning = content_of(choice) or "", reasoning_of(choice)
    if text and content and not tokens.pieces:
        raise ValueError("the server's answer has no log-probabilities of its tokens")
    attributes = _about(choice, text) | ({"top_k": k} if k else {})
    if not text or not content:  # no content: the text stands for it
        known = _of_thought(tokens, reasoning, 0) if reasoning else {}
        return GeneratedText(text, token_log_probs=np.zeros(0), **attributes, **known)
    return GeneratedText(text, **attributes, **_of_answer(tokens, reasoning, content, text))


def text_alone(choice: Mapping[str, Any], text: str) -> GeneratedText:
    """Return a text of a server that gives no log-probabilities."""
    content, thought = content_of(choice) or "", reasoning_of(choice).strip()
    taken_away = content[: len(content) - len(text)].rstrip() if content.endswith(text) else ""
    return GeneratedText(text, **_about(choice, text), thought=thought or taken_away)


def _about(choice: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return what is known of a text beside its tokens."""
    finish, content = choice.get("finish_reason"), content_of(choice)
    return {
        "finish_reason": finish if finish in ("length", "stop") else None,
        "thought_is_open": bool(reasoning_of(choice) and not content) or is_open_thought("", text),
        "has_content": content is not None,
    }


def _entries(choice: Mapping[str, Any]) -> tuple[list[str], list[Any], list[Any]]:
    """Return texts and log-probabilities of the tokens that a server lists, and the most probable ones beside each."""
    found = choice.get("logprobs") or {}
    if "content" in found:
        entries = found["content"] or ()
        tops = [[(e.get("token", ""), e.get("logprob")) for e in entry.get("top_logprobs") or ()] for entry in entries]
        return [str(entry.get("token", "")) for entry in entries], [entry.get("logprob") for entry in entries], tops
    tops = [[*(top or {}).items()] for top in found.get("top_logprobs") or ()]
    return found.get("tokens") or [], found.get("token_logprobs") or [], tops


def _listed(top: Sequence[tuple[Any, Any]]) -> Listed:
    """Read the most probable tokens of one position; none where they are no probabilities of tokens."""
    try:
        listed = tuple((str(token), checked_log_prob(value, f"token {token!r}")) for token, value in top)
    except ValueError:
        return ()
    return listed if math.fsum(math.exp(value) for _, value in listed) <= 1 + ROUNDING else ()


def _log_prob(value: Any, number: int, piece: str) -> float:
    if value == MISSING:
        raise ValueError(f"the log-probability of token {number}, {piece!r} is {value}, which stands for none")
    return checked_log_prob(value, f"token {number}, {piece!r}")


def _of_answer(tokens: _Tokens, reasoning: str, content: str, text: str) -> dict[str, Any]:
    """Return what is known of the tokens of text and thought; {} where the tokens are others."""
    pieces, emitted, first = tokens.pieces, tokens.text, 0
    thought = content[: len(content) - len(text)].rstrip()  # what the harness took
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
    known = _of_thought(tokens, thought, answer.start)
    if tokens.mean_top_k is not None:
        known["mean_top_k"] = np.concatenate([known.get("mean_top_k", ()), tokens.mean_top_k[answer]])
    return {
        **known,
        "token_log_probs": tokens.log_probs[answer],
        "token_ends": _ends(pieces, answer, first_char, text),
        "listed": tuple(tokens.listed[answer]),
    }


def _of_thought(tokens: _Tokens, thought: str, stop: int) -> dict[str, Any]:
    """Return what is known of a thought, whose tokens may be some of the first ``stop``."""
    thought = thought.strip()
    begin = "".join(tokens.pieces[: stop or None]).find(thought) if thought else -1
    if begin < 0:
        return {"thought": thought}
    of_thought = tokens_between(tokens.pieces, begin, begin + len(thought))
    return {
        "thought": thought,
        "thought_log_probs": tokens.log_probs[of_thought],
        "thought_ends": _ends(tokens.pieces, of_thought, begin, thought),
        **({} if tokens.mean_top_k is None else {"mean_top_k": tokens.mean_top_k[of_thought]}),
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
