"""Checks of what comes in, apart from the formulas: every error is a ValueError that names row and value.

Nothing is guessed from values and nothing is repaired: percentages, logits, NaN and ``[N, 1]`` columns are
refused. What passes is returned as float64 or int64.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Probs = ArrayLike | Sequence[ArrayLike]
"""[N, K] probabilities, or N vectors whose lengths may differ."""

SUM_TOLERANCE = 1e-4
"""How far from 1 the sum of a distribution may be."""


class Choices(NamedTuple):
    """Multiple-choice docs as one flat list of forecasts, doc after doc.

    Attributes:
        probs: [n_forecasts] probability of the choice.
        hits: [n_forecasts] 1 where the choice is the doc's label, else 0.
        doc: [n_forecasts] index of the doc.
        position: [n_forecasts] position of the choice in its doc: the class.
        n_choices: [N] number of choices of each doc.
    """

    probs: FloatArray
    hits: FloatArray
    doc: IntArray
    position: IntArray
    n_choices: IntArray


def check_top_label(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Confidence in [0, 1] and correct in {0, 1} as two float64 vectors of the same length.

    Raises ValueError: not a vector, empty, of different lengths, not numbers, nan, outside [0, 1], not 0 or 1.
    """
    conf, hit = _numbers(confidence, correct)
    check_unit_interval("confidence", conf)
    return conf, _outcomes(hit)


def check_scores(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The same of any finite numbers in place of confidence, for what takes their ranks alone."""
    conf, hit = _numbers(confidence, correct)
    if (bad := np.flatnonzero(~np.isfinite(conf))).size:
        raise ValueError(f"confidence[{bad[0]}] is {float(conf[bad[0]])!r}, which is not a finite number")
    return conf, _outcomes(hit)


def _numbers(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    conf, hit = _vector("confidence", confidence), _vector("correct", correct)
    _check_lengths("confidence", len(conf), "correct", len(hit))
    if hit.dtype.kind == "b":
        hit = hit.astype(np.float64)
    return _as_float64("confidence", conf), _as_float64("correct", hit)


def _outcomes(hit: FloatArray) -> FloatArray:
    if (bad := np.flatnonzero((hit != 0) & (hit != 1))).size:
        raise ValueError(f"correct[{bad[0]}] is {float(hit[bad[0]])!r}, not 0 or 1")
    return hit


def check_choices(probs: Probs, labels: ArrayLike) -> Choices:
    """Choice probabilities and labels as one flat list of forecasts; docs may have different K_i.

    Raises ValueError: empty, of different lengths, not numbers, nan, outside [0, 1], a row that does not sum to 1
    within 1e-4, a label that is not an integer or not one of the doc's choices.
    """
    flat, n_choices = _flatten(probs)
    label = check_labels("labels", labels)
    _check_lengths("probs", len(n_choices), "labels", len(label))
    first = np.cumsum(n_choices) - n_choices
    doc = np.repeat(np.arange(len(n_choices)), n_choices)
    position = np.arange(len(flat)) - first[doc]
    bad = _first_outside(flat)
    if bad is not None:
        _raise_outside(f"probs[{doc[bad]}][{position[bad]}]", flat[bad])
    _check_sums("probs", np.add.reduceat(flat, first))
    check_label_range("labels", label, n_choices, "choices")
    return Choices(flat, (position == label[doc]).astype(np.float64), doc, position, n_choices)


def check_distributions(probs: FloatArray, first_row: int) -> None:
    """Rows of a [n, V] block, the first of which is row ``first_row`` of the whole, are distributions."""
    bad = _first_outside(probs.ravel())
    if bad is not None:
        row, entry = divmod(bad, probs.shape[1])
        _raise_outside(f"probs[{first_row + row}][{entry}]", probs[row, entry])
    _check_sums("probs", probs.sum(axis=1), first_row)


def check_labels(name: str, labels: ArrayLike) -> IntArray:
    """A vector of integers; floats and booleans are refused."""
    array = _vector(name, labels)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    return array.astype(np.int64)


def check_label_range(name: str, labels: IntArray, n_options: IntArray, options: str) -> None:
    """Every label is one of its row's options: 0 <= labels[i] < n_options[i]."""
    bad = np.flatnonzero((labels < 0) | (labels >= n_options))
    if bad.size:
        row = bad[0]
        raise ValueError(f"{name}[{row}] is {labels[row]}, but row {row} has {n_options[row]} {options}")


def check_unit_interval(name: str, values: FloatArray) -> None:
    """Every value of a vector is a number in [0, 1]."""
    bad = _first_outside(values)
    if bad is not None:
        _raise_outside(f"{name}[{bad}]", values[bad])


def check_probability_vector(name: str, values: ArrayLike) -> FloatArray:
    """A float64 vector with every value in [0, 1]; it may be empty."""
    array = _as_float64(name, _vector(name, values, may_be_empty=True))
    check_unit_interval(name, array)
    return array


def check_probability(name: str, value: float) -> float:
    """One number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{name} is {value!r}, not a number")
    if not 0 <= value <= 1:
        _raise_outside(name, value)
    return float(value)


def check_positive_integer(name: str, value: int, at_least: int = 1) -> int:
    """An integer (a bool is none) of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        wanted = "a positive integer" if at_least == 1 else f"an integer of at least {at_least}"
        raise ValueError(f"{name} is {value!r}; it must be {wanted}")
    return int(value)


def check_n_bins(n_bins: int) -> int:
    """The number of bins, a positive integer."""
    return check_positive_integer("n_bins", n_bins)


def undefined(reason: str) -> float:
    """Nan, with an UndefinedMetricWarning that says why: never an invented 0 or 0.5."""
    from sklearn.exceptions import UndefinedMetricWarning

    warnings.warn(reason, UndefinedMetricWarning, stacklevel=3)
    return float("nan")


def _vector(name: str, values: ArrayLike, *, may_be_empty: bool = False) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; it must be one-dimensional")
    if array.size == 0 and not may_be_empty:
        raise ValueError(f"{name} is empty")
    return array


def _as_float64(name: str, array: NDArray[np.generic]) -> FloatArray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers, not {array.dtype}")
    return array.astype(np.float64)


def _flatten(probs: Probs) -> tuple[FloatArray, IntArray]:
    """All rows one after the other, and the length of each."""
    if hasattr(probs, "__array__"):
        probs = np.atleast_1d(np.asarray(probs))
        if probs.ndim == 2 and probs.dtype != object and probs.size:
            return _as_float64("probs", probs).ravel(), np.full(probs.shape[0], probs.shape[1])
    if not isinstance(probs, np.ndarray | list | tuple):
        raise ValueError("probs must be an [N, K] array or a list of N vectors")
    rows = [_row(i, row) for i, row in enumerate(probs)]
    if not rows:
        raise ValueError("probs is empty")
    return _as_float64("probs", np.concatenate(rows)), np.array([len(row) for row in rows])


def _row(index: int, values: ArrayLike) -> NDArray[np.generic]:
    row = np.asarray(values)
    if row.ndim != 1:
        raise ValueError(f"probs[{index}] has shape {row.shape}; it must be one vector of choices")
    if row.size == 0:
        raise ValueError(f"probs[{index}] has no choices")
    if row.dtype == object:
        try:
            return row.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"probs[{index}] is not a vector of numbers: {error}") from error
    return row


def _check_lengths(name: str, length: int, other: str, other_length: int) -> None:
    if length != other_length:
        raise ValueError(f"{name} has {length} rows, but {other} has {other_length}")


def _first_outside(values: FloatArray) -> int | None:
    """Index of the first value that is nan or outside [0, 1]."""
    if values.size == 0 or (values.min() >= 0 and values.max() <= 1):  # False where one is nan
        return None
    return int(np.argmin((values >= 0) & (values <= 1)))


def _raise_outside(what: str, value: float) -> None:
    shown = "is nan" if np.isnan(value) else f"is {float(value)!r}, outside [0, 1]"
    raise ValueError(f"{what} {shown}")


def _check_sums(name: str, sums: FloatArray, first_row: int = 0) -> None:
    bad = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if bad.size:
        raise ValueError(f"{name}[{first_row + bad[0]}] sums to {sums[bad[0]]:.6g}, not 1")
