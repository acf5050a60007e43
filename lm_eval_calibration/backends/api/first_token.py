"""Choices read from the first token of an answer: all that a chat server gives, which scores no given text.

A choice has the probability that the first token reads as it. Tokens that read alike up to the space around them (the
letter with a blank before it and without) are events that exclude each other, so theirs add up; a word counts in
capital and small letters, a single letter as it is ("a" may begin a sentence). Tokens that go on ("A.", "A)") or
stop short ("may" of "maybe") count for no choice: they are among the mass that no choice received.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_calibration.backends.answer_types import TokenScores
from lm_eval_calibration.backends.top_k import ROUNDING, checked_log_prob, unlisted_mass

DISTRIBUTIONS = "first_token"
"""What a certificate says under ``distributions``."""


def reason_unreadable(choices: Sequence[str]) -> str | None:
    """Say which of a doc's choices can't be read from one token (None: all can)."""
    read: dict[str, str] = {}
    for choice in choices:
        word = choice.strip()
        if not word.isalnum():
            return f"choice {choice!r} is no single letter, number or word"
        if (key := _key(word)) in read:
            return f"choices {read[key]!r} and {choice!r} read alike"
        read[key] = choice
    return None


def top_tokens(answer: Any) -> list[tuple[str, float]]:
    """Read the most probable first tokens of a chat answer: text and natural-log probability of each.

    Raises:
        ValueError: they are missing, or are no log-probabilities: missing ones are never p = 1; or theirs are no
            probabilities of tokens that exclude each other, as where a server gives 0 or -9999 for all.
    """
    content = (answer.get("logprobs") or {}).get("content") or []
    top = content[0].get("top_logprobs") if content else None
    if not top:
        raise ValueError("the server's answer has no log-probabilities of its first token")
    read = [(str(e["token"]), checked_log_prob(e.get("logprob"), f"token {e['token']!r}")) for e in top]
    total = math.fsum(math.exp(log_prob) for _, log_prob in read)
    if not 0 < total <= 1 + ROUNDING:
        raise ValueError(f"the probabilities of the {len(read)} most probable first tokens add up to {total:g}")
    return read


def choice_scores(
    top: Sequence[tuple[str, float]], choices: Sequence[str], certificate: Mapping[str, Any]
) -> list[TokenScores]:
    """Return each choice's log-likelihood: the log of the probability that the first token reads as it.

    A choice that none of the listed tokens reads as has a bound, the largest probability that an unlisted token may
    have, and ``choices: bounded`` in its certificate. That is the second smallest listed probability, or what the
    listed tokens leave of 1 if it is less. (The smallest may belong to the token that the server drew.)

    Args:
        top: the most probable first tokens.
        choices: of one doc.
        certificate: how this was obtained.
    """
    exact, bounded = ({**certificate, "choices": name} for name in ("exact", "bounded"))
    probs = [math.exp(log_prob) for _, log_prob in top]
    bound = max(sys.float_info.min, min([unlisted_mass(probs), *sorted(probs)[1:2]]))
    best = _key(max(top, key=lambda entry: entry[1])[0].strip())
    scores = []
    for choice in choices:
        key = _key(choice.strip())
        mass = math.fsum(p for (token, _), p in zip(top, probs, strict=True) if _key(token.strip()) == key)
        log_likelihood = math.log(min(mass, 1.0) if mass > 0 else bound)
        scores.append(TokenScores((log_likelihood, best == key), certificate=exact if mass > 0 else bounded))
    return scores


def unassigned_mass(choices: Sequence[TokenScores]) -> float:
    """Return the probability that a doc's answer begins with none of its choices (among the listed tokens)."""
    read = math.fsum(math.exp(answer[0]) for answer in choices if is_listed(answer))
    return min(1.0, max(0.0, 1.0 - read))


def is_of_first_token(answer: TokenScores) -> bool:
    """Whether a choice was read from the first token."""
    return bool(answer.certificate.get("distributions") == DISTRIBUTIONS)


def is_listed(answer: TokenScores) -> bool:
    """Whether one of the listed tokens reads as the choice; else its log-likelihood is a bound."""
    return bool(answer.certificate["choices"] == "exact")


def reads_as(token: str, word: str) -> bool:
    """Whether a token reads as a word, up to the space around them."""
    return _key(token.strip()) == _key(word.strip())


def _key(word: str) -> str:
    return word if len(word) == 1 else word.casefold()
