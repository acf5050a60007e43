"""Which docs are learned from and which are judged: by what they ask, so that no doc is ever in both."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

VALIDATION_SHARE = 0.2
"""Of the docs that are graded, the share that is held out to follow the training."""

MOST_VALIDATION = 500


class Parts(NamedTuple):
    """Numbers of docs in their splits.

    Attributes:
        fit: docs that the model learns from.
        validation: docs held out of these, to follow the training by.
        judged: docs of the split that the task evaluates which neither of the others holds.
        n_duplicates: docs left out because another one asks the same.
    """

    fit: tuple[int, ...]
    validation: tuple[int, ...]
    judged: tuple[int, ...]
    n_duplicates: int


def content_hash(text: object, choices: Sequence[str]) -> str:
    """SHA-256 of what a doc asks: its prompt and choices, whatever their case and blanks; ids and notes don't count."""
    asked = [" ".join(str(part).casefold().split()) for part in (text, *choices)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def split_one(contents: Sequence[str], sources: Sequence[str], fraction: float, limit: int) -> Parts:
    """Split the docs of one split by the hash of what they were made from, which is their content as a rule.

    Args:
        contents: hash of each doc.
        sources: hash of what each was made from; docs that share it are on the same side.
        fraction: of the docs to learn from, in (0, 1); a doc is on the same side whatever other docs there are.
        limit: docs to learn from at most, held-out ones included.
    """
    first = _first_of_each(contents)
    chosen = [i for i in first if _place(sources[i]) < fraction]
    fit, validation = _held_out(chosen, contents, limit)
    judged = tuple(sorted(set(first) - set(chosen)))
    return Parts(fit, validation, judged, len(contents) - len(first))


def split_two(training: Sequence[str], evaluated: Sequence[str], limit: int) -> Parts:
    """Learn from one split and judge another; docs of both are taken out of the one that is learned from.

    Args:
        training: hash of each doc of the training split.
        evaluated: hash of each doc of the split that the task evaluates.
        limit: docs to learn from at most, held-out ones included.
    """
    here, there = _first_of_each(training), _first_of_each(evaluated)
    asked = set(evaluated)
    chosen = [i for i in here if training[i] not in asked]
    fit, validation = _held_out(chosen, training, limit)
    n_left_out = len(training) - len(chosen) + len(evaluated) - len(there)
    return Parts(fit, validation, tuple(there), n_left_out)


def _first_of_each(contents: Sequence[str]) -> list[int]:
    return sorted({content: i for i, content in reversed(list(enumerate(contents)))}.values())


def _held_out(docs: Sequence[int], contents: Sequence[str], limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Docs to learn from and held-out ones, at most ``limit`` together, in an order that their content gives."""
    ordered = sorted(docs, key=lambda i: contents[i][16:])[:limit]
    n_held_out = min(MOST_VALIDATION, round(VALIDATION_SHARE * len(ordered)))
    return tuple(sorted(ordered[n_held_out:])), tuple(sorted(ordered[:n_held_out]))


def _place(content: str) -> float:
    """Where a hash lies in [0, 1)."""
    return float(int(content[:16], 16) / 2**64)
