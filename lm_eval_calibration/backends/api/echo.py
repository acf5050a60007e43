"""What a server echoes of a prompt, position by position, and whether that can be believed."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from lm_eval_calibration.backends.api.written import MISSING
from lm_eval_calibration.backends.top_k import Position, checked_log_prob

_MIN_TOKENS = 8
"""Tokens of a prompt of which not all can be certain."""


def positions(choice: Mapping[str, Any], prompt: Sequence[int] | None, last: Collection[str] = ()) -> list[Position]:
    """Read an echoed prompt; the first position, which has nothing before it, has log-probability nan.

    Args:
        choice: of a completions response to a request for one token more, which is left out.
        prompt: the tokens sent, where they are known.
        last: how a server may write the last of them: some leave out the token more, and end with this one.

    Raises:
        ValueError: log-probabilities are missing, too few, not numbers or above 0: missing ones are never p = 1.
    """
    found = choice.get("logprobs") or {}
    tokens, log_probs = found.get("tokens"), found.get("token_logprobs")
    top = found.get("top_logprobs") or [None] * len(log_probs or ())
    if not tokens or not log_probs:
        raise ValueError("the server's answer has no log-probabilities of the prompt: does it support echo=true?")
    if not len(tokens) == len(log_probs) == len(top):
        raise ValueError(
            f"the server's answer has {len(tokens)} tokens, {len(log_probs)} log-probabilities and {len(top)} lists of "
            "top entries"
        )
    n_echoed = len(tokens) - 1
    if prompt is not None and n_echoed != len(prompt):
        if len(tokens) != len(prompt) or tokens[-1] not in last:
            raise ValueError(
                f"the server's answer has {len(tokens)} tokens; {len(prompt)} were sent and one was requested"
            )
        n_echoed = len(prompt)
    echoed = [Position(str(tokens[0]), math.nan, {})]
    for i in range(1, n_echoed):
        given = {str(key): checked_log_prob(value, f"token {i}, {key!r}") for key, value in (top[i] or {}).items()}
        echoed.append(Position(str(tokens[i]), checked_log_prob(log_probs[i], f"token {i}"), given))
    _check_that_they_differ([position.log_prob for position in echoed[1:]])
    return echoed


def _check_that_they_differ(log_probs: Sequence[float]) -> None:
    """Refuse placeholders: some servers give 0 or -9999 for every token, and no text is that certain or impossible."""
    if len(log_probs) >= _MIN_TOKENS:
        for placeholder, are_all in ((0, min(log_probs) > -1e-6), (MISSING, max(log_probs) <= MISSING)):
            if are_all:
                raise ValueError(f"the server gives every token of the prompt the log-probability {placeholder:g}")


class EchoCheck:
    """Whether a server's log-probabilities are one position late: each row after its token, not before it.

    A language model has most tokens of a text among its k most probable ones. In a shifted answer it is the row
    before that has them, and a token's own row only by chance.
    """

    MIN_TOKENS = 20
    """Tokens that must be found in the row before to call an answer shifted."""

    def __init__(self) -> None:
        self.n_own = self.n_before = self.n_tokens = 0

    def add(self, echoed: Sequence[Position], k: int) -> None:
        """Count the tokens that are among the most probable of their own row, and of the row before."""
        for before, here in pairwise(echoed[1:]):
            if before.top and here.top:
                self.n_tokens += 1
                self.n_own += here.token in _most_probable(here.top, k)
                self.n_before += here.token in _most_probable(before.top, k)

    @property
    def is_shifted(self) -> bool:
        """Whether the row before has at least twice as many."""
        return self.n_before >= self.MIN_TOKENS and self.n_before >= 2 * self.n_own

    @property
    def message(self) -> str:
        """What to tell the user."""
        return (
            f"the server's log-probabilities are shifted by one position: of {self.n_tokens} echoed tokens "
            f"{self.n_own} are among the most probable at their own position and {self.n_before} among those at the "
            "position before. Don't believe any number of this run, accuracy included"
        )


def _most_probable(top: Mapping[Any, float], k: int) -> set[Any]:
    """Return the k most probable: servers add the echoed token to them where it is none of these."""
    return set(sorted(top, key=lambda token: -top[token])[:k])
