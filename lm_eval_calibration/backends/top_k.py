"""From the most probable entries of each distribution, which is all that servers and engines give, to token scores.

Full-ECE needs those that can reach 1/n_bins only: each answer says from which probability on its entries are complete.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.backends.answer_types import MIN_LARGE_PROB, Floats, TokenScores

K = 20
"""Entries to request: they hold every probability of at least 0.05, and no server that gives any choice has a lower
default limit."""

ROUNDING = 0.01
"""By how much the probabilities of several tokens may exceed 1: servers round log-probabilities."""


class Position(NamedTuple):
    """One token of a prompt."""

    token: Hashable  # its id, or as a server writes it
    log_prob: float  # natural-log probability, given the tokens before it
    top: Mapping[Any, float]  # the most probable tokens there, this one perhaps among them; empty: none are given


def scores_of(
    continuation: Sequence[Position], k: int, *, are_ids: bool, vocab_size: int | None, certificate: Mapping[str, Any]
) -> TokenScores:
    """Return a continuation's scores; without distributions where none were given.

    ``k`` entries were requested (the token's own may be one more); ``are_ids`` says whether tokens that read alike have
    different names; ``vocab_size`` is the number of entries of the whole distribution.
    """
    log_probs = np.array([position.log_prob for position in continuation], dtype=np.float64)
    if any(not position.top for position in continuation):
        return TokenScores((float(log_probs.sum()), False), certificate={**certificate, "distributions": "none"})
    is_greedy = all(position.log_prob == max(position.top.values()) for position in continuation)
    probs = [np.exp(np.fromiter(position.top.values(), dtype=np.float64)) for position in continuation]
    return TokenScores(
        (float(log_probs.sum()), is_greedy),
        log_probs=log_probs,
        large_probs=tuple(p[p >= MIN_LARGE_PROB] for p in probs),
        vocab_size=vocab_size,
        complete_from=max(MIN_LARGE_PROB, *(_complete_from(p, k, are_ids) for p in probs)),
        certificate=certificate,
    )


def _complete_from(probs: Floats, k: int, are_ids: bool) -> float:
    """Return a probability that no entry beside those given exceeds.

    No entry is larger than what they leave of 1. Where k tokens are distinguished by id, none is larger than the k-th
    either (the prompt's own token, if it is a further one, is the smallest); as strings two tokens can read alike,
    and one of them is lost.
    """
    left = unlisted_mass(probs)
    largest = min(left, float(np.sort(probs)[-k])) if are_ids and len(probs) >= k else left
    return math.nextafter(largest, 1.0)  # one as large as that may be missing


def unlisted_mass(probs: Iterable[float]) -> float:
    """Return what the listed probabilities, which are rounded to float32, leave of 1 at most."""
    return max(0.0, 1.0 - math.fsum(probs)) + 1e-6


def checked_log_prob(value: Any, location: str) -> float:
    """Return a log-probability; raise ValueError where it is missing, no number or above 0."""
    if not isinstance(value, int | float) or not value <= 1e-6:  # they are rounded; nan is not <= anything
        raise ValueError(f"the log-probability of {location} is {value!r}")
    return min(float(value), 0.0)
