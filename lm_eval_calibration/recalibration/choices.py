"""Log-likelihoods of the choices of many docs as one flat list, so that docs may have different numbers of choices."""

from collections.abc import Iterable
from typing import Any, NamedTuple

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
    rows = log_likelihoods if _is_matrix(log_likelihoods) else [_row(i, row) for i, row in enumerate(log_likelihoods)]
    if not len(rows):
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


def stacked(rows: Any) -> Any:
    """[N, K] where all docs have K choices, else the rows as they are."""
    is_ragged = isinstance(rows, np.ndarray) or len({np.shape(row) for row in rows}) != 1
    return rows if is_ragged else np.asarray(rows, dtype=np.float64)


def take(rows: Any, which: IntArray) -> Any:
    """The rows of these docs."""
    return rows[which] if isinstance(rows, np.ndarray) else [rows[i] for i in which]


def assemble(parts: Iterable[tuple[IntArray, Any]], n_docs: int) -> Any:
    """The rows (or single values) of all docs from parts that each say which docs theirs are; every doc is in one."""
    parts = list(parts)
    shapes = {rows.shape[1:] if isinstance(rows, np.ndarray) else None for _, rows in parts}
    shape = shapes.pop()
    if not shapes and shape is not None:
        together = np.empty((n_docs, *shape))
        for which, rows in parts:
            together[which] = rows
        return together
    of_doc = dict(pair for which, rows in parts for pair in zip(which.tolist(), rows, strict=True))
    return [of_doc[i] for i in range(n_docs)]


def _is_matrix(rows: Any) -> bool:
    return isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] > 0 and rows.dtype == np.float64


def _row(index: int, values: ArrayLike) -> FloatArray:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        raise ValueError(f"log_likelihoods[{index}] has shape {row.shape}; it must be one vector of choices")
    return row
