"""How a backend's tokenizer spells two continuations of a prompt."""

from typing import Any

from lm_eval_calibration.backends.switch import backend


def begins(lm: Any, context: str, first: str, second: str) -> bool:
    """Whether the tokens of the first continuation are those that the second begins with.

    Then going on with the second is a case of having gone on with the first, and their probabilities are not those of
    two events. False where the harness knows no tokens of the backend's (a server without a tokenizer).
    """
    encode = getattr(backend(lm), "_encode_pair", None)
    if encode is None:
        return False
    (_, short), (_, long) = encode(context, first), encode(context, second)
    return bool(len(short) < len(long) and list(long[: len(short)]) == list(short))


def encode_pair(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its continuation as the harness makes them."""
    tokens: tuple[list[int], list[int]] = lm._encode_pair(context, continuation)
    return tokens
