"""Top-label calibration errors less their bias, which a plug-in error has because noise never cancels in it.

Both take ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raise ValueError that
names the first bad row and its value.

Source: Kumar et al. 2019, arXiv:1909.10155.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import nulls
from lm_eval_calibration.metrics.uncertainty.gap_vectors import equal_width_gaps, root_gaps
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.inversion import error_estimate, inverted_tests
from lm_eval_calibration.metrics.uncertainty.resampling import sums_stderr
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_n_bins, check_top_label, undefined

DEBIASING_DRAWS = 1000
"""Gaussian resamples that estimate the bias of the plug-in error, as in Kumar et al.'s code."""


NO_PAIR = "ece_debiased is undefined: no bin holds two docs"


def _mean_sizes(gaps: FloatArray, spread: FloatArray, noise: FloatArray) -> FloatArray:
    """mean_b |gap + spread z_b| of each gap [R]: of the sorted z_b those below -gap / spread change sign."""
    ranked, n_draws = np.sort(noise), len(noise)
    sums = np.append(0, np.cumsum(ranked))
    scaled = gaps / np.where(spread > 0, spread, 1)
    n_below = np.searchsorted(ranked, -scaled)
    drawn = spread * (sums[-1] - 2 * sums[n_below] + (n_draws - 2 * n_below) * scaled) / n_draws
    return np.where(spread > 0, drawn, np.abs(gaps))


def _debiased(right: FloatArray, conf: FloatArray, counts: FloatArray | IntArray, seed: int) -> FloatArray:
    """The error of each row of sums over the docs of the bins [R, n_bins], nan where no bin holds two docs.

    right: correct docs. conf: sums of confidence. counts: docs.
    """
    noise = np.random.default_rng(seed).standard_normal((DEBIASING_DRAWS, right.shape[1]))
    gaps, acc = right - conf, right / np.maximum(counts, 1)
    spread = np.sqrt(np.maximum(right * (1 - acc), 0))  # n_m times that of acc_m
    resampled = sum(_mean_sizes(*of_bin) for of_bin in zip(gaps.T, spread.T, noise.T, strict=True))
    found = np.maximum(0, 2 * np.abs(gaps).sum(axis=1) - resampled) / counts.sum(axis=1)
    return np.where(counts.max(axis=1) < 2, np.nan, found)


def _debiased_stderr(
    conf: FloatArray,
    hit: FloatArray,
    *,
    n_bins: int,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> float:
    doc, index = np.arange(len(conf)), bin_index(conf, n_bins)
    if np.bincount(index).max() < 2:
        return undefined(NO_PAIR)
    sums = np.zeros((len(conf), 3, n_bins))
    sums[doc, :, index] = np.column_stack([hit, conf, np.ones(len(conf))])
    options: dict[str, Any] = {"draws": draws, "seed": seed, "strata": index, "cluster": cluster}

    def formula(totals: FloatArray) -> FloatArray:
        right, of_conf, counts = np.split(totals, 3, axis=1)
        return _debiased(right, of_conf, counts, seed=0)

    return sums_stderr(formula, sums.reshape(len(conf), -1), **options)


def _debiased_null(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    index, forecasts = bin_index(conf, n_bins), nulls.forecasts_of_docs(conf, hit, cluster)
    right = nulls.drawn_totals(forecasts, nulls.bins_membership(index, n_bins), seed)
    of_conf = np.broadcast_to(bin_sums(index, conf, n_bins), right.shape)
    counts = np.broadcast_to(np.bincount(index, minlength=n_bins), right.shape)
    return _debiased(right, of_conf, counts, seed=0)


@metric(
    "top_label",
    higher_is_better=False,
    order=13,
    stderr=_debiased_stderr,
    estimate=inverted_tests(equal_width_gaps),
    null=_debiased_null,
)
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
    right, of_conf = (bin_sums(index, values, n_bins)[None] for values in (hit, conf))
    value = float(_debiased(right, of_conf, np.bincount(index, minlength=n_bins)[None], seed)[0])
    return undefined(NO_PAIR) if np.isnan(value) else value


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


def _debiased_squares(right: FloatArray, conf: FloatArray, counts: IntArray) -> FloatArray:
    """The error of each row of sums over the docs of the bins [..., n_bins]: a bin of one doc adds 0."""
    size = np.maximum(counts, 2)
    acc = right / size
    square = (acc - conf / size) ** 2 - acc * (1 - acc) / (size - 1)
    return np.asarray(np.sqrt(np.maximum(0, np.sum(counts * square, axis=-1, where=counts > 1) / counts.sum())))


def _l2_null(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    index, forecasts = _separated_bins(conf, n_bins), nulls.forecasts_of_docs(conf, hit, cluster)
    right = nulls.drawn_totals(forecasts, nulls.bins_membership(index, n_bins), seed)
    return _debiased_squares(right, bin_sums(index, conf, n_bins), np.bincount(index, minlength=n_bins))


@metric("top_label", higher_is_better=False, order=14, estimate=_l2_estimate, null=_l2_null)
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
    return float(_debiased_squares(bin_sums(index, hit, n_bins), bin_sums(index, conf, n_bins), counts))
