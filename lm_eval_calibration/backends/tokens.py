"""Tokens and the text that they spell."""

from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from lm_eval.api.model import CachingLM
from numpy.typing import NDArray

Decode = Callable[[list[int]], str]

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers show for the beginning of a character."""


def encode_pair(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its continuation as the harness makes them."""
    tokens: tuple[list[int], list[int]] = lm._encode_pair(context, continuation)
    return tokens


def is_token_prefix(lm: Any, context: str, first: str, second: str) -> bool:
    """Whether the second continuation's tokens begin with all of the first's.

    Then writing the second is a case of having written the first, and their probabilities are not those of two events.
    False where the harness knows no tokens of the backend's (a server without a tokenizer).
    """
    encode = getattr(lm.lm if isinstance(lm, CachingLM) else lm, "_encode_pair", None)
    if encode is None:
        return False
    (_, short), (_, long) = encode(context, first), encode(context, second)
    return bool(len(short) < len(long) and list(long[: len(short)]) == list(short))


# --- Which of the emitted tokens a text consists of: those that have a character in it. After the end of the text there
# may be more tokens, of the stop string or of padding; before it, what the model thought and the harness took away.


def span_of_ids(
    tokens: list[int], text: str, decode: Decode, special: Collection[int], thinking: str | int | None
) -> slice | None:
    """Return the tokens of the text; None where it does not consist of them in their order.

    Args:
        tokens: emitted, by their ids.
        text: what the harness made of them.
        decode: ids to text.
        special: ids that have no text.
        thinking: the token, or the string, that ends what the harness takes away; None where nothing is.
    """
    if not text:
        return slice(0, 0)
    start = 0
    if isinstance(thinking, int):
        start = next((i + 1 for i in reversed(range(len(tokens))) if tokens[i] == thinking), 0)
    tokens = tokens[start:]
    emitted = decode(tokens)
    answer = emitted.split(thinking)[-1] if isinstance(thinking, str) and thinking else emitted
    answer = answer if thinking is None else answer.lstrip()
    first_char = len(emitted) - len(answer)
    if not answer.startswith(text):
        return None
    first = _shortest(decode, tokens, emitted[:first_char]) if first_char else 0
    if first_char and len(decode(tokens[:first])) > first_char:
        first -= 1  # a token that is cut in two
    if text == answer:
        last = next((i + 1 for i in reversed(range(len(tokens))) if tokens[i] not in special), 0)
    else:
        last = _shortest(decode, tokens, emitted[: first_char + len(text)])
    return slice(start + first, start + last)


def token_ends(tokens: Sequence[int], text: str, decode: Decode) -> NDArray[np.int64] | None:
    """Return how many characters of a text its tokens spell, up to and including each.

    Args:
        tokens: those that :func:`span_of_ids` finds; the first may begin, and the last end, outside the text.
        text: what they spell.
        decode: ids to text.
    """
    pieces = pieces_of_ids(tokens, decode)
    spelled = "".join(pieces)
    first_char = spelled.find(text)
    if first_char < 0 or (first_char > 0 and first_char >= len(next(filter(None, pieces)))):
        return None
    return ends_of_pieces(pieces, first_char, text)


def pieces_of_ids(tokens: Sequence[int], decode: Decode) -> list[str]:
    """Return the text that each token adds; a character that several tokens spell is in the last one's.

    Every token is decoded beside its neighbours, since a blank or half a character may depend on them, and not behind
    all tokens before it: the work is linear in their number.
    """
    pieces, start, known, shown = [], 0, 0, ""
    for i in range(len(tokens)):
        longer = decode(list(tokens[start : i + 1]))
        if len(longer) > len(shown) and not longer.endswith(INCOMPLETE):
            pieces.append(longer[len(shown) :])
            start, known = known, i + 1
            shown = decode(list(tokens[start:known]))
        else:  # no text, or the beginning of a character
            pieces.append("")
    if pieces:  # the limit of tokens may leave half a character
        pieces[-1] += decode(list(tokens[start:]))[len(shown) :]
    return pieces


def ends_of_pieces(pieces: Sequence[str], first_char: int, text: str) -> NDArray[np.int64]:
    """Return how many characters of a text the pieces spell up to and including each; it begins at ``first_char``."""
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64) - first_char
    return np.clip(ends, 0, len(text))


def tokens_of_span(ends: Sequence[int] | NDArray[np.int64], start: int, stop: int) -> slice:
    """Return the tokens that spell the characters from ``start`` to ``stop`` of a text, part of a token included.

    Args:
        ends: how many characters the tokens spell up to and including each.
        start: first character.
        stop: the one after the last.
    """
    # Tokens that begin the first character without completing it end where it begins, as the token before them does.
    first = int(np.searchsorted(ends, start, side="right"))
    while first > 0 and ends[first - 1] == start and (ends[first - 2] if first > 1 else 0) == start:
        first -= 1
    return slice(first, int(np.searchsorted(ends, stop, side="left")) + 1)


def _shortest(decode: Decode, tokens: list[int], text: str) -> int:
    """Return how many of the tokens are needed to spell the text."""
    low, high = 0, len(tokens)
    while low < high:  # the length grows with every token but those that complete a character
        middle = (low + high) // 2
        low, high = (low, middle) if len(decode(tokens[:middle])) >= len(text) else (middle + 1, high)
    while low < len(tokens) and not decode(tokens[:low]).startswith(text):
        low += 1
    return low


def span_of_pieces(pieces: Sequence[str], content: str, text: str) -> slice | None:
    """Return the tokens of the text where a server gives each token's own text; None where it has others.

    Args:
        pieces: the emitted tokens' texts; a character that several tokens spell is in the last one's.
        content: what the server gives as the text of the answer; special tokens, thoughts and the stop string may be
            left out at its ends.
        text: its end, the answer itself.
    """
    if not text:
        return slice(0, 0)
    emitted = "".join(pieces)
    start = 0 if emitted.startswith(content) else emitted.find(content)
    if start < 0 or not content.endswith(text) or (start > 0 and emitted.count(content) > 1):
        return None
    last_char = start + len(content)
    first_char = last_char - len(text)
    ends = list(accumulate(map(len, pieces)))
    first = next(i for i, end in enumerate(ends) if end > first_char)
    while first > 0 and not pieces[first - 1]:  # it begins the character
        first -= 1
    last = next(i + 1 for i, end in enumerate(ends) if end >= last_char)
    return slice(first, last)
