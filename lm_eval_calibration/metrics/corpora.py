"""Calibration of every token of a corpus, from sums over the tokens of each doc: sums of docs, shards and ranks add up.

Top-label here: of each position only the most probable token and its probability. For every vocabulary entry see
:func:`~lm_eval_calibration.metrics.full_vocabulary.full_ece_from_gap_sums`. Tokens of one text depend on each other:
standard errors are bootstraps over docs.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.resampling import sums_stderr
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_labels


def token_ece(gaps: ArrayLike, n_tokens: ArrayLike) -> float:
    """Token-level top-label calibration error: (1 / N) sum_m |sum_i gap_im| over equal-width bins m of confidence.

    The ``ece`` of all N tokens, each a forecast that the model's most probable token is the text's own.

    Args:
        gaps: [n_docs, n_bins] sum over the doc's tokens in each bin of (correct - confidence).
        n_tokens: [n_docs] number of tokens of each doc, at least 1.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    gaps, n = _check(gaps, n_tokens)
    return float(np.abs(gaps.sum(axis=0)).sum() / n.sum())


def token_ece_stderr(gaps: ArrayLike, n_tokens: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`token_ece`: bootstrap over docs; nan for one doc."""
    gaps, n = _check(gaps, n_tokens)
    sums = np.column_stack([gaps, n])
    return sums_stderr(lambda t: np.abs(t[:, :-1]).sum(axis=1) / t[:, -1], sums, draws=draws, seed=seed)


def token_accuracy(n_correct: ArrayLike, n_tokens: ArrayLike) -> float:
    """Share of the tokens that are the model's most probable one: sum_i n_correct_i / sum_i n_tokens_i.

    Args:
        n_correct: [n_docs] tokens of each doc that are.
        n_tokens: [n_docs] tokens of each doc, at least 1.

    Returns:
        A share, 0 to 1 (best).

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    correct, n = _check_counts(n_correct, n_tokens)
    return float(correct.sum() / n.sum())


def token_accuracy_stderr(n_correct: ArrayLike, n_tokens: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`token_accuracy`: bootstrap over docs; nan for one doc."""
    sums = np.column_stack(_check_counts(n_correct, n_tokens)).astype(np.float64)
    return sums_stderr(lambda t: t[:, 0] / t[:, 1], sums, draws=draws, seed=seed)


def _check(gaps: ArrayLike, n_tokens: ArrayLike) -> tuple[FloatArray, IntArray]:
    array, n = np.asarray(gaps, dtype=np.float64), check_labels("n_tokens", n_tokens)
    if array.ndim != 2 or array.shape[1] == 0 or len(array) != len(n):
        raise ValueError(f"gaps has shape {list(array.shape)}; it must be [{len(n)}, n_bins], as n_tokens has docs")
    bad = np.flatnonzero(~(np.abs(array).sum(axis=1) <= n))  # a token adds at most 1; nan included
    if bad.size:
        row = bad[0]
        raise ValueError(f"gaps[{row}] adds up to {np.abs(array[row]).sum():.6g} over {n[row]} tokens")
    return array, _at_least_one(n)


def _check_counts(n_correct: ArrayLike, n_tokens: ArrayLike) -> tuple[IntArray, IntArray]:
    correct, n = check_labels("n_correct", n_correct), check_labels("n_tokens", n_tokens)
    if len(correct) != len(n):
        raise ValueError(f"n_correct has {len(correct)} docs, but n_tokens has {len(n)}")
    bad = np.flatnonzero((correct < 0) | (correct > n))
    if bad.size:
        raise ValueError(f"n_correct[{bad[0]}] is {correct[bad[0]]} of {n[bad[0]]} tokens")
    return correct, _at_least_one(n)


def _at_least_one(n: IntArray) -> IntArray:
    bad = np.flatnonzero(n < 1)
    if bad.size:
        raise ValueError(f"n_tokens[{bad[0]}] is {n[bad[0]]}, not a positive integer")
    return n
