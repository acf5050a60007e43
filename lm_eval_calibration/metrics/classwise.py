"""Classwise calibration of multiple choice: every choice of every doc is a forecast of "this is the answer".

Every function takes ``probs``, an [N, K] array or a list of N vectors whose lengths K_i may differ, and
``labels`` [N], the integer position of the gold choice. A class is a choice position; there are K = max K_i,
and class k is judged on the docs that have it. ValueError names the first bad row and its value. Standard
errors are bootstraps over docs, see :mod:`~lm_eval_calibration.metrics.resampling`.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, equal_mass_gaps
from lm_eval_calibration.metrics.resampling import (
    SortedForecasts,
    resampled_ranges,
    sort_forecasts,
    spread,
    sums_stderr,
)
from lm_eval_calibration.metrics.validation import (
    Choices,
    FloatArray,
    IntArray,
    Probs,
    check_choices,
    check_n_bins,
    check_top_label,
)


def ace(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """Adaptive calibration error: 1 / (K R) sum_k sum_r |acc(r, k) - conf(r, k)| over equal-mass ranges.

    The R = n_bins ranges of class k are ``np.array_split`` of its sorted forecasts; ties take their mean
    outcome first, so order never matters. Empty ranges are left out of the mean; ranges count alike, then
    classes count alike. Warns where every doc has the same gold position: the error then measures that
    position, not the model.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.
        n_bins: Number of ranges of each class.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    choices = check_choices(probs, labels)
    n_bins = check_n_bins(n_bins)
    gold = choices.position[choices.hits == 1]
    if len(gold) > 1 and np.all(gold == gold[0]):
        warnings.warn(f"ace means little here: the gold choice of every doc is at position {gold[0]}", stacklevel=2)
    ranges = [equal_mass_gaps(choices.probs[k], choices.hits[k], n_bins) for k in _classes(choices)]
    gaps, sizes = zip(*ranges, strict=True)
    return float(_ace(np.array(gaps), np.array(sizes)))


def ace_stderr(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`ace`: bootstrap over docs; nan for one doc."""
    choices = check_choices(probs, labels)
    classes = [sort_forecasts(choices.doc[k], choices.probs[k], choices.hits[k]) for k in _classes(choices)]
    return _ace_stderr(classes, len(choices.n_choices), n_bins=n_bins, draws=draws, seed=seed)


def ace_one_class(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """:func:`ace` of a generation, which has one class (K = 1): 1 / R sum_r |acc_r - conf_r|.

    Unlike :func:`~lm_eval_calibration.metrics.top_label.ace_top_label` all ranges count alike, which differs
    where N is no multiple of n_bins.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of ranges.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    conf, hit = check_top_label(confidence, correct)
    gaps, sizes = equal_mass_gaps(conf, hit, check_n_bins(n_bins))
    return float(_ace(gaps[None], sizes[None]))


def ace_one_class_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`ace_one_class`: bootstrap over docs; nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    ranked = sort_forecasts(np.arange(len(conf)), conf, hit)
    return _ace_stderr([ranked], len(conf), n_bins=n_bins, draws=draws, seed=seed)


def sce(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """Static calibration error: 1 / K sum_k sum_m (n_mk / N_k) |acc(m, k) - conf(m, k)|, equal-width bins.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.
        n_bins: Number of bins; empty ones add 0.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    choices = check_choices(probs, labels)
    n_bins, n_classes = check_n_bins(n_bins), choices.n_choices.max()
    cell = choices.position * n_bins + bin_index(choices.probs, n_bins)
    gaps = bin_sums(cell, choices.hits - choices.probs, n_classes * n_bins)
    return float(_sce(gaps.reshape(n_classes, n_bins), np.bincount(choices.position)))


def sce_stderr(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`sce`: bootstrap over docs; nan for one doc."""
    choices = check_choices(probs, labels)
    n_bins, n_classes = check_n_bins(n_bins), int(choices.n_choices.max())
    cell = choices.position * n_bins + bin_index(choices.probs, n_bins)
    gaps = _doc_sums(choices, cell, choices.hits - choices.probs, n_classes * n_bins)
    present = (np.arange(n_classes) < choices.n_choices[:, None]).astype(np.float64)

    def formula(totals: FloatArray) -> FloatArray:
        gap, docs = np.split(totals, [n_classes * n_bins], axis=1)
        return _sce(gap.reshape(-1, n_classes, n_bins), np.rint(docs))

    sums = np.concatenate([gaps, present], axis=1)
    return sums_stderr(formula, sums, draws=draws, seed=seed, strata=choices.n_choices)


def full_ece_choices(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """All forecasts of all choices pooled: (1 / N) sum_m |sum_{(i, k) in m} (1[y_i = k] - p_ik)|.

    The formula of ``full_ece`` over the choices only, so not Full-ECE, which is over the vocabulary.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.
        n_bins: Number of equal-width bins; empty ones add 0.

    Returns:
        Expected choices per doc, 0 (best) to 2.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: after Liu et al. 2024, arXiv:2406.11345.
    """
    choices = check_choices(probs, labels)
    index = bin_index(choices.probs, check_n_bins(n_bins))
    gaps = bin_sums(index, choices.hits - choices.probs, n_bins)
    return float(np.abs(gaps).sum() / len(choices.n_choices))


def full_ece_choices_stderr(
    probs: Probs, labels: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`full_ece_choices`: bootstrap over docs; nan for one doc."""
    choices = check_choices(probs, labels)
    n_bins, n_docs = check_n_bins(n_bins), len(choices.n_choices)
    gaps = _doc_sums(choices, bin_index(choices.probs, n_bins), choices.hits - choices.probs, n_bins)
    return sums_stderr(lambda t: np.abs(t).sum(axis=1) / n_docs, gaps, draws=draws, seed=seed)


def _classes(choices: Choices) -> list[IntArray]:
    """The forecasts of each class."""
    order = np.argsort(choices.position, kind="stable")
    return np.split(order, np.cumsum(np.bincount(choices.position))[:-1])


def _doc_sums(choices: Choices, cell: IntArray, values: FloatArray, n_cells: int) -> FloatArray:
    """Sum of the values of each doc in each cell, [N, n_cells]."""
    n_docs = len(choices.n_choices)
    flat = choices.doc * n_cells + cell
    return bin_sums(flat, values, n_docs * n_cells).reshape(n_docs, n_cells)


def _ace_stderr(classes: list[SortedForecasts], n_docs: int, *, n_bins: int, draws: int, seed: int) -> float:
    gaps, sizes = resampled_ranges(classes, n_docs, n_bins=check_n_bins(n_bins), draws=draws, seed=seed)
    return spread(_ace(gaps, sizes), n_docs=n_docs)


# The formulas take gaps [..., K, n_bins]: one sample, or all draws at once. A class without docs is left out.


def _ace(gaps: FloatArray, sizes: IntArray) -> FloatArray:
    """``sizes`` [..., K, R]: docs in each range."""
    errors = np.abs(gaps) / np.maximum(sizes, 1)
    per_class = errors.sum(axis=-1) / np.maximum((sizes > 0).sum(axis=-1), 1)
    return np.asarray(per_class.sum(axis=-1) / (sizes.sum(axis=-1) > 0).sum(axis=-1))


def _sce(gaps: FloatArray, n_docs: FloatArray | IntArray) -> FloatArray:
    """``n_docs`` [..., K]: docs that have the class."""
    per_class = np.abs(gaps).sum(axis=-1) / np.maximum(n_docs, 1)
    return np.asarray(per_class.sum(axis=-1) / (n_docs > 0).sum(axis=-1))
