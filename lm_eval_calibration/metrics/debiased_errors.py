"""Top-label calibration errors less their bias, which a plug-in error has because noise never cancels in it.

Both take ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raise ValueError that
names the first bad row and its value.

Source: Kumar et al. 2019, arXiv:1909.10155.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.top_label_errors import sum_of_gaps
from lm_eval_calibration.metrics.uncertainty.gap_vectors import equal_width_gaps, root_gaps
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.inversion import error_estimate, inverted_tests
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_n_bins, check_top_label, undefined

DEBIASING_DRAWS = 1000
"""Gaussian resamples that estimate the bias of the plug-in error, as in Kumar et al.'s code."""


@metric("top_label", higher_is_better=False, order=13, estimate=inverted_tests(equal_width_gaps))
def ece_debiased(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> float:
    """:func:`ece` less its estimated bias: max(0, 2 ece - mean_b ece_b).

    ece_b is the error with the accuracy of each bin redrawn from normal(acc_m, acc_m (1 - acc_m) / n_m),
    1,000 times. A bin with one doc says nothing about its bias and is not corrected.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of equal-width bins.
    seed: seed of ``np.random.default_rng``.
    Returns a probability, 0 (best) to 1; nan with UndefinedMetricWarning where no bin holds two docs. Raises
    ValueError for bad input, naming the row and the value.
    Source: Kumar et al. 2019, arXiv:1909.10155.
    """
    conf, hit = check_top_label(confidence, correct)
    index = bin_index(conf, n_bins)
    counts = np.bincount(index, minlength=n_bins)
    if counts.max() < 2:
        return undefined("ece_debiased is undefined: no bin holds two docs")
    size = np.maximum(counts, 1)
    acc, mean_conf = bin_sums(index, hit, n_bins) / size, bin_sums(index, conf, n_bins) / size
    rng = np.random.default_rng(seed)
    redrawn_acc = rng.normal(acc, np.sqrt(acc * (1 - acc) / size), size=(DEBIASING_DRAWS, n_bins))
    plug_in = sum_of_gaps(counts * (acc - mean_conf), counts)
    resampled = sum_of_gaps(counts * (redrawn_acc - mean_conf), counts)
    return float(max(0, 2 * plug_in - resampled.mean()))


def _separated_bins(conf: FloatArray, n_bins: int) -> IntArray:
    """Bins separated half-way between the neighbours of the ``np.array_split`` ranges."""
    ranges = np.array_split(np.sort(conf), n_bins)
    between = [(left[-1] + right[0]) / 2 for left, right in pairwise(ranges)]
    return np.searchsorted(between, conf, side="left")


def _too_few_for_bins(n_docs: int, n_bins: int) -> str | None:
    reason = f"ce_l2_debiased is undefined: {n_docs} docs are fewer than two for each of {n_bins} bins"
    return reason if n_docs < 2 * n_bins else None


def _l2_estimate(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int, cluster: IntArray | None = None
) -> Estimate:
    if reason := _too_few_for_bins(len(conf), n_bins):
        return undefined_estimate(len(conf), reason)
    vector = root_gaps(conf, hit, _separated_bins(conf, n_bins), n_bins)
    return error_estimate(vector, "root", level=level, seed=seed, cluster=cluster)


@metric("top_label", higher_is_better=False, order=14, estimate=_l2_estimate)
def ce_l2_debiased(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Debiased l2 calibration error over equal-mass bins.

    sqrt(max(0, sum_m (n_m / N) [(acc_m - conf_m)^2 - acc_m (1 - acc_m) / (n_m - 1)])).

    Bins are separated half-way between the neighbours of the ``np.array_split`` ranges, so equal confidences
    stay together; a bin with one doc adds 0.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of bins.
    Returns a probability, 0 (best) to 1; nan with UndefinedMetricWarning where N < 2 n_bins. Raises ValueError for bad
    input, naming the row and the value.
    Source: Kumar et al. 2019, arXiv:1909.10155.
    """
    conf, hit = check_top_label(confidence, correct)
    if reason := _too_few_for_bins(len(conf), check_n_bins(n_bins)):
        return undefined(reason)
    index = _separated_bins(conf, n_bins)
    counts = np.bincount(index, minlength=n_bins)
    size = np.maximum(counts, 2)  # bins with fewer docs add nothing below
    acc, mean_conf = bin_sums(index, hit, n_bins) / size, bin_sums(index, conf, n_bins) / size
    square = (acc - mean_conf) ** 2 - acc * (1 - acc) / (size - 1)
    return float(np.sqrt(max(0, np.sum(counts * square, where=counts > 1) / len(conf))))
