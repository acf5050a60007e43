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
        n_duplicates: docs left out because another one has the same content.
    """

    fit: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    n_duplicates: int


def content_hash(prompt: object, choices: Sequence[str]) -> str:
    """SHA-256 of a doc's prompt and choices, whatever their case and blanks; ids and notes don't count."""
    content = [" ".join(str(part).casefold().split()) for part in (prompt, *choices)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def split_within(contents: Sequence[str], sources: Sequence[str], fraction: float, limit: int) -> Split:
    """Split the docs of one split by the hash of what they were made from, which is their content as a rule.

    Args:
        contents: hash of each doc.
        sources: hash of what each was made from; docs that share it are on the same side.
        fraction: of the docs to learn from, in (0, 1); a doc is on the same side whatever other docs there are.
        limit: docs to learn from at most, held-out ones included.
    """
    first = _first_of_each(contents)
    to_learn_from = [i for i in first if int(sources[i][:16], 16) / 2**64 < fraction]  # the hash as a number in [0, 1)
    fit, validation = _hold_out(to_learn_from, contents, limit)
    test = tuple(sorted(set(first) - set(to_learn_from)))
    return Split(fit, validation, test, len(contents) - len(first))


def split_across(training: Sequence[str], evaluated: Sequence[str], limit: int) -> Split:
    """Learn from one split and test on another; docs of both are taken out of the one that is learned from.

    Args:
        training: hash of each doc of the training split.
        evaluated: hash of each doc of the split that the task evaluates.
        limit: docs to learn from at most, held-out ones included.
    """
    test, also_evaluated = _first_of_each(evaluated), set(evaluated)
    to_learn_from = [i for i in _first_of_each(training) if training[i] not in also_evaluated]
    fit, validation = _hold_out(to_learn_from, training, limit)
    n_duplicates = len(training) - len(to_learn_from) + len(evaluated) - len(test)
    return Split(fit, validation, tuple(test), n_duplicates)


def _first_of_each(contents: Sequence[str]) -> list[int]:
    return sorted({content: i for i, content in reversed(list(enumerate(contents)))}.values())


def _hold_out(docs: Sequence[int], contents: Sequence[str], limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Docs to learn from and held-out ones, at most ``limit`` together, in an order that their content gives."""
    ordered = sorted(docs, key=lambda i: contents[i][16:])[:limit]
    n_held_out = min(MOST_VALIDATION, round(VALIDATION_SHARE * len(ordered)))
    return tuple(sorted(ordered[n_held_out:])), tuple(sorted(ordered[:n_held_out]))
