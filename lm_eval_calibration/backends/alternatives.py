"""What a request for a text may want of the tokens that the model could have written instead.

``wants_top_k``: the mean log-probability of the most probable tokens at every position, for numbers along a chain of
thought. ``option_position``: a function that takes the text and returns the position of one of its tokens, or None;
the most probable tokens there are wanted, among which a doc's options may be. Nothing else of them is kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_eval_calibration.backends.answer_types import Floats, GeneratedText, Listed


def want_means(requests: Sequence[Any]) -> bool:
    """Whether some requests want means at every position."""
    return any(getattr(request, "wants_top_k", False) for request in requests)


def want_top_tokens(requests: Sequence[Any]) -> bool:
    """Whether some requests want the most probable tokens of one position."""
    return any(getattr(request, "option_position", None) is not None for request in requests)


def wanted_position(request: Any, text: GeneratedText) -> int | None:
    """Return the position of a text at which a request wants the most probable tokens; None for no position."""
    find = getattr(request, "option_position", None)
    return None if find is None else find(text)


def has_what_is_wanted(request: Any, text: GeneratedText) -> bool:
    """Whether a text, which may be an earlier run's from a cache, has what a request wants beside its own tokens."""
    if text.token_log_probs is None:  # nothing more is known of its tokens
        return True
    if getattr(request, "wants_top_k", False) and text.mean_top_k is None:
        return False
    position = wanted_position(request, text)
    return position is None or (text.top_tokens is not None and text.top_tokens.position == position)


def means_of_listed(listed: Sequence[Listed], k: int) -> Floats | None:
    """Return minus the mean log-probability of the k most probable tokens at each position; None where some are few."""
    if any(len(tokens) < k for tokens in listed):
        return None
    largest = [sorted((log_prob for _, log_prob in tokens), reverse=True)[:k] for tokens in listed]
    means: Floats = -np.array(largest, dtype=np.float64).reshape(-1, k).mean(axis=1)
    return means
