"""Which docs to learn from and which to test on: decided by their content, so that no doc is ever on both sides."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

VALIDATION_SHARE = 0.2
"""Share of the graded docs that is held out to validate the training."""

MOST_VALIDATION = 500


class Split(NamedTuple):
    """Numbers of docs in their splits.

    Attributes:
        fit: docs that the model learns from.
        validation: docs held out of these, to validate the training.
        test: the other docs of the split that the task evaluates.
        n_duplicates: docs left out because another one has the same content, or is evaluated and of the same source.
    """

    fit: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    n_duplicates: int


def content_hash(prompt: object, choices: Sequence[str]) -> str:
    """SHA-256 of a doc's prompt and choices, whatever their case and blanks; ids and notes don't count."""
    content = [" ".join(str(part).casefold().split()) for part in (prompt, *choices)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Hashes(NamedTuple):
    """Hashes of the docs of one split.

    Attributes:
        contents: of each doc's prompt and choices.
        sources: of what each was made from or drawn with: its cluster, as a rule itself. Docs that share it are on
            the same side.
    """

    contents: Sequence[str]
    sources: Sequence[str]


def split_within(docs: Hashes, fraction: float, limit: int) -> Split:
    """Split the docs of one split by the hash of their source.

    Args:
        docs: hashes of the docs.
        fraction: of the docs to learn from, in (0, 1); a doc is on the same side whatever other docs there are.
        limit: docs to learn from at most, held-out ones included.
    """
    first = _first_of_each(docs.contents)
    to_learn_from = [i for i in first if int(docs.sources[i][:16], 16) / 2**64 < fraction]  # a number in [0, 1)
    fit, validation = _hold_out(to_learn_from, docs, limit)
    test = tuple(sorted(set(first) - set(to_learn_from)))
    return Split(fit, validation, test, len(docs.contents) - len(first))


def split_across(training: Hashes, evaluated: Hashes, limit: int) -> Split:
    """Learn from one split and test on another; docs of sources of both are taken out of the one learned from.

    Args:
        training: hashes of the docs of the training split.
        evaluated: hashes of the docs of the split that the task evaluates.
        limit: docs to learn from at most, held-out ones included.
    """
    test, tested = _first_of_each(evaluated.contents), {*evaluated.contents, *evaluated.sources}
    to_learn_from = [
        i
        for i in _first_of_each(training.contents)
        if training.contents[i] not in tested and training.sources[i] not in tested
    ]
    fit, validation = _hold_out(to_learn_from, training, limit)
    n_left_out = len(training.contents) - len(to_learn_from) + len(evaluated.contents) - len(test)
    return Split(fit, validation, tuple(test), n_left_out)


def _first_of_each(contents: Sequence[str]) -> list[int]:
    return sorted({content: i for i, content in reversed(list(enumerate(contents)))}.values())


def _hold_out(docs: Sequence[int], hashes: Hashes, limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Docs to learn from and held-out ones, at most ``limit`` together, in an order that their sources give.

    The held-out ones come first, up to the end of a source: no source is in both.
    """
    ordered = sorted(docs, key=lambda i: (hashes.sources[i][16:], hashes.contents[i][16:]))[:limit]
    n_held_out = min(MOST_VALIDATION, round(VALIDATION_SHARE * len(ordered)))
    while 0 < n_held_out < len(ordered) and _same_source(hashes, ordered[n_held_out - 1], ordered[n_held_out]):
        n_held_out -= 1
    return tuple(sorted(ordered[n_held_out:])), tuple(sorted(ordered[:n_held_out]))


def _same_source(hashes: Hashes, i: int, j: int) -> bool:
    return hashes.sources[i] == hashes.sources[j]
