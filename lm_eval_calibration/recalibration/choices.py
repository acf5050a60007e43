"""Log-likelihoods of the choices of many docs as one flat list, so that docs may have different numbers of choices."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.validation import FloatArray, IntArray, Probs


class FlatChoices(NamedTuple):
    """The choices of all docs, doc after doc.

    Attributes:
        values: [n_choices in all] log-likelihood less the doc's largest one, so at most 0; -inf is kept.
        first: [N] index of each doc's first choice.
        n_choices: [N] number of choices of each doc.
    """

    values: FloatArray
    first: IntArray
    n_choices: IntArray


def flatten(log_likelihoods: Probs) -> FlatChoices:
    """Check log-likelihoods and lay them end to end.

    Args:
        log_likelihoods: [N, K] nats, or N vectors whose lengths may differ; -inf is a choice without a chance.

    Raises:
        ValueError: nan, +inf, a doc without choices or with all of them at -inf; the message names doc and value.
    """
    if not isinstance(log_likelihoods, np.ndarray | list | tuple):
        raise ValueError("log_likelihoods must be an [N, K] array or a list of N vectors")
    rows = [_row(i, row) for i, row in enumerate(log_likelihoods)]
    if not rows:
        raise ValueError("log_likelihoods is empty")
    n_choices = np.array([len(row) for row in rows])
    values, first = np.concatenate(rows), np.cumsum(n_choices) - n_choices
    largest = np.maximum.reduceat(values, first)
    bad = np.flatnonzero(~np.isfinite(largest))  # a nan or +inf choice is the largest, as is -inf where all are
    if bad.size:
        raise ValueError(f"log_likelihoods[{bad[0]}] is {rows[bad[0]].tolist()}: its largest value must be a number")
    return FlatChoices(values - np.repeat(largest, n_choices), first, n_choices)


def softmax(choices: FlatChoices, temperature: float = 1.0) -> FloatArray:
    """Flat choice probabilities exp(l / T) / sum exp(l / T)."""
    weights = np.exp(choices.values / temperature)
    return np.asarray(weights / np.repeat(np.add.reduceat(weights, choices.first), choices.n_choices))


def unflatten(values: FloatArray, choices: FlatChoices) -> FloatArray | list[FloatArray]:
    """[N, K] where all docs have K choices, else a list of N vectors."""
    if choices.n_choices.min() == choices.n_choices.max():
        return values.reshape(len(choices.n_choices), -1)
    return np.split(values, choices.first[1:])


def take(rows: Sequence[FloatArray] | FloatArray, which: IntArray) -> list[FloatArray]:
    """The rows of these docs."""
    return [rows[i] for i in which]


def _row(index: int, values: ArrayLike) -> FloatArray:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        raise ValueError(f"log_likelihoods[{index}] has shape {row.shape}; it must be one vector of choices")
    return row
