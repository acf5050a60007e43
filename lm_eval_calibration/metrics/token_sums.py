"""Sums over the tokens of a doc from which token-level errors are computed without the vocabulary.

A distribution has at most n_bins entries with p >= 1 / n_bins, and its entries sum to 1, as do its hits. So only
those large entries and the reference token need a bin: what is in bin 0 is 1 minus the rest. The *gap sums* of a
position, hits - mass in each bin, add up over positions, docs, shards and ranks.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.validation import (
    SUM_TOLERANCE,
    FloatArray,
    IntArray,
    check_distributions,
    check_label_range,
    check_labels,
    check_n_bins,
    check_probability,
    check_probability_vector,
)

BLOCK = 2**22
"""Probabilities handled at a time: 32 MB in float64."""


def position_gap_sums(probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10) -> FloatArray:
    """Gap sums of every position of a whole matrix of probabilities, in blocks of rows.

    Args:
        probs: [n_tokens, vocab_size] probabilities, rows sum to 1.
        targets: [n_tokens] reference token ids.
        n_bins: Number of equal-width bins.

    Returns:
        [n_tokens, n_bins] float64: hits - mass in each bin.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    matrix, target = np.asarray(probs), check_labels("targets", targets)
    n_bins = check_n_bins(n_bins)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(f"probs must be numbers [n_tokens, vocab_size]; it is {matrix.dtype} {list(matrix.shape)}")
    if len(matrix) != len(target):
        raise ValueError(f"probs has {len(matrix)} rows, but targets has {len(target)}")
    n_tokens, vocab_size = matrix.shape
    check_label_range("targets", target, np.full(n_tokens, vocab_size), "vocabulary entries")
    step = max(1, BLOCK // vocab_size)
    gaps = np.empty((n_tokens, n_bins))
    for start in range(0, n_tokens, step):
        block = matrix[start : start + step].astype(np.float64)
        check_distributions(block, first_row=start)
        gaps[start : start + step] = _block_gap_sums(block, target[start : start + step], n_bins)
    return gaps


def gap_sums(large_probs: ArrayLike, target_prob: float, *, n_bins: int = 10) -> FloatArray:
    """Gap sums of one position from its large probabilities only: the threshold form, exact.

    Args:
        large_probs: Probabilities of any set of entries that holds all with p >= 1 / n_bins, the reference
            token too if it is that large. It may be empty. Whether the set reaches down to 1 / n_bins is for
            the caller to know: see :func:`check_kept_from`.
        target_prob: Probability of the reference token.
        n_bins: Number of equal-width bins.

    Returns:
        [n_bins] float64: hits - mass in each bin, bin 0 being what is left of 1 - 1.

    Raises:
        ValueError: nan or outside [0, 1], a sum above 1, a large target_prob that is not in large_probs.
    """
    large = check_probability_vector("large_probs", large_probs)
    target = check_probability("target_prob", target_prob)
    gaps: FloatArray = gap_sums_of_positions(large, [len(large)], [target], n_bins=n_bins)[0]
    return gaps


def gap_sums_of_positions(
    large_probs: ArrayLike, n_large: ArrayLike, target_probs: ArrayLike, *, n_bins: int = 10
) -> FloatArray:
    """:func:`gap_sums` of many positions at once.

    Args:
        large_probs: Large probabilities of all positions, position after position.
        n_large: [n_positions] number of them at each position.
        target_probs: [n_positions] probability of each reference token.
        n_bins: Number of equal-width bins.

    Returns:
        [n_positions, n_bins] float64: hits - mass in each bin.

    Raises:
        ValueError: As :func:`gap_sums`; the message names the first bad position.
    """
    large = check_probability_vector("large_probs", large_probs)
    target = check_probability_vector("target_probs", target_probs)
    counts, n_bins = np.asarray(n_large, dtype=np.int64), check_n_bins(n_bins)
    _check_large_probs(large, counts, target, n_bins)
    position = np.repeat(np.arange(len(counts)), counts)
    cell = position * n_bins + bin_index(large, n_bins)
    gaps = -bin_sums(cell, large, len(counts) * n_bins).reshape(-1, n_bins)
    gaps[np.arange(len(counts)), bin_index(target, n_bins)] += 1
    gaps[:, 0] = -gaps[:, 1:].sum(axis=1)
    return gaps


def _check_large_probs(large: FloatArray, counts: IntArray, target: FloatArray, n_bins: int) -> None:
    """The counts fit, no position sums to more than 1, and no large target is missing."""
    if counts.shape != target.shape or counts.sum() != len(large):
        raise ValueError(
            f"n_large counts {counts.sum()} of {len(large)} large_probs, at {len(counts)} of {len(target)} positions"
        )
    position = np.repeat(np.arange(len(counts)), counts)
    sums = bin_sums(position, large, len(counts))
    bad = np.flatnonzero(sums > 1 + SUM_TOLERANCE)
    if bad.size:
        raise ValueError(f"large_probs{_of(bad[0], counts)} sums to {sums[bad[0]]:.6g}, more than 1")
    near = np.abs(large - target[position]) <= SUM_TOLERANCE
    found = np.bincount(position[near], minlength=len(counts)) > 0
    bad = np.flatnonzero((target - SUM_TOLERANCE > 1 / n_bins) & ~found)
    if bad.size:
        first = float(target[bad[0]])
        raise ValueError(
            f"target_prob{_of(bad[0], counts)} is {first!r}, at least 1 / {n_bins}, but not in large_probs"
        )


def check_kept_from(n_bins: int, kept_from: float) -> None:
    """Probabilities that were kept from ``kept_from`` on are enough for ``n_bins`` bins.

    Args:
        n_bins: Number of equal-width bins that is wanted.
        kept_from: Every entry with p >= kept_from was kept.

    Raises:
        ValueError: 1 / n_bins is below ``kept_from``: entries that need a bin of their own are missing.
    """
    n_bins, kept_from = check_n_bins(n_bins), check_probability("kept_from", kept_from)
    if kept_from > 1 / n_bins:
        raise ValueError(
            f"n_bins={n_bins} needs every probability of at least 1 / {n_bins}, "
            f"but only those of at least {kept_from!r} were kept: at most {int(1 / kept_from)} bins"
        )


def check_gap_sums(gap_sums: ArrayLike, n_positions: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Gap sums [N, n_bins] of docs, each adding up to 0, and their numbers of positions, at least 1."""
    gaps, n = np.asarray(gap_sums, dtype=np.float64), check_labels("n_positions", n_positions)
    if gaps.ndim != 2 or gaps.shape[1] == 0:
        raise ValueError(f"gap_sums has shape {gaps.shape}; it must be [N, n_bins]")
    if len(gaps) != len(n):
        raise ValueError(f"gap_sums has {len(gaps)} rows, but n_positions has {len(n)}")
    bad = np.flatnonzero(n < 1)
    if bad.size:
        raise ValueError(f"n_positions[{bad[0]}] is {n[bad[0]]}, not a positive integer")
    sums = gaps.sum(axis=1)
    bad = np.flatnonzero(~(np.abs(sums) <= SUM_TOLERANCE * n))  # nan included
    if bad.size:
        raise ValueError(f"gap_sums[{bad[0]}] sums to {sums[bad[0]]:.6g}, not 0")
    return gaps, n


def check_token_gaps(gaps: ArrayLike, n_tokens: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Gaps [N, n_bins] of the tokens of each doc, at most 1 a token, and their number, at least 1."""
    array, n = np.asarray(gaps, dtype=np.float64), check_labels("n_tokens", n_tokens)
    if array.ndim != 2 or array.shape[1] == 0 or len(array) != len(n):
        raise ValueError(f"gaps has shape {list(array.shape)}; it must be [{len(n)}, n_bins], as n_tokens has docs")
    bad = np.flatnonzero(~(np.abs(array).sum(axis=1) <= n))  # a token adds at most 1; nan included
    if bad.size:
        row = bad[0]
        raise ValueError(f"gaps[{row}] adds up to {np.abs(array[row]).sum():.6g} over {n[row]} tokens")
    return array, _at_least_one(n)


def check_token_counts(n_correct: ArrayLike, n_tokens: ArrayLike) -> tuple[IntArray, IntArray]:
    """Numbers of correct tokens of each doc, and of all, at least 1."""
    correct, n = check_labels("n_correct", n_correct), check_labels("n_tokens", n_tokens)
    if len(correct) != len(n):
        raise ValueError(f"n_correct has {len(correct)} docs, but n_tokens has {len(n)}")
    bad = np.flatnonzero((correct < 0) | (correct > n))
    if bad.size:
        raise ValueError(f"n_correct[{bad[0]}] is {correct[bad[0]]} of {n[bad[0]]} tokens")
    return correct, _at_least_one(n)


def _of(position: int, counts: IntArray) -> str:
    return "" if len(counts) == 1 else f" of position {position}"


def _block_gap_sums(probs: FloatArray, targets: IntArray, n_bins: int) -> FloatArray:
    """Hits - mass in each bin at each position; only entries of at least 1 / n_bins are looked up."""
    n_tokens = len(probs)
    row, entry = np.nonzero(probs >= 1 / n_bins)
    cell = row * n_bins + bin_index(probs[row, entry], n_bins)
    mass = bin_sums(cell, probs[row, entry], n_tokens * n_bins)
    gaps = -mass.reshape(n_tokens, n_bins)
    gaps[:, 0] = -probs.sum(axis=1) - gaps[:, 1:].sum(axis=1)
    position = np.arange(n_tokens)
    gaps[position, bin_index(probs[position, targets], n_bins)] += 1
    return gaps


def _at_least_one(n: IntArray) -> IntArray:
    bad = np.flatnonzero(n < 1)
    if bad.size:
        raise ValueError(f"n_tokens[{bad[0]}] is {n[bad[0]]}, not a positive integer")
    return n
