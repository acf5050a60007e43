"""Top-label calibration: is a doc answered with confidence c right with probability c?

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Standard errors are bootstraps over docs, see
:mod:`~lm_eval_calibration.metrics.resampling`.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, equal_mass_gaps
from lm_eval_calibration.metrics.resampling import (
    bootstrap_stderr,
    mean_stderr,
    resampled_ranges,
    sort_forecasts,
    spread,
    sums_stderr,
)
from lm_eval_calibration.metrics.validation import (
    FloatArray,
    IntArray,
    check_n_bins,
    check_probability,
    check_top_label,
    undefined,
)

DEBIASING_DRAWS = 1000
"""Gaussian resamples that estimate the bias of the plug-in error, as in Kumar et al.'s code."""


def ece(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Expected calibration error: sum_m (n_m / N) |acc_m - conf_m| over equal-width bins.

    A plug-in estimate, biased upward: report it beside its null.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of bins; empty ones add 0.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(_ece(*_bin_gaps(conf, hit, check_n_bins(n_bins))))


def ece_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`ece`: bootstrap over docs; nan for one doc."""
    totals, strata = _doc_bins(confidence, correct, n_bins)
    return sums_stderr(lambda t: _ece(*_halves(t)), totals, draws=draws, seed=seed, strata=strata)


def mce(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Maximum calibration error: max_m |acc_m - conf_m| over the equal-width bins that hold a doc.

    One doc alone in a bin can make it large: not an estimate of anything at small N.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of bins.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Naeini et al. 2015.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(_mce(*_bin_gaps(conf, hit, check_n_bins(n_bins))))


def mce_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`mce`: bootstrap over docs; nan for one doc."""
    totals, strata = _doc_bins(confidence, correct, n_bins)
    return sums_stderr(lambda t: _mce(*_halves(t)), totals, draws=draws, seed=seed, strata=strata)


def rms_ce(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Root mean square calibration error: sqrt(sum_m (n_m / N) (acc_m - conf_m)^2) over equal-width bins.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of bins; empty ones add 0.

    Returns:
        A probability, 0 (best) to 1; never below :func:`ece`.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Hendrycks et al. 2019, arXiv:1812.04606, with equal-width bins.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(_rms_ce(*_bin_gaps(conf, hit, check_n_bins(n_bins))))


def rms_ce_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`rms_ce`: bootstrap over docs; nan for one doc."""
    totals, strata = _doc_bins(confidence, correct, n_bins)
    return sums_stderr(lambda t: _rms_ce(*_halves(t)), totals, draws=draws, seed=seed, strata=strata)


def ace_top_label(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Top-label error over equal-mass ranges: sum_r (n_r / N) |acc_r - conf_r|. Often called "adaptive ECE".

    Ranges are those of ``np.array_split`` on the sorted confidences; ties take their mean outcome first. Not
    ``ace``, which is classwise.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of ranges.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Mukhoti et al. 2020, arXiv:2002.09437; Nguyen & O'Connor 2015, arXiv:1508.05154.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(_ece(*equal_mass_gaps(conf, hit, check_n_bins(n_bins))))


def ace_top_label_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`ace_top_label`: bootstrap over docs; nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    ranked = sort_forecasts(np.arange(len(conf)), conf, hit)
    gaps, sizes = resampled_ranges([ranked], len(conf), n_bins=check_n_bins(n_bins), draws=draws, seed=seed)
    return spread(_ece(gaps[:, 0], sizes[:, 0]), n_docs=len(conf))


def ece_debiased(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> float:
    """:func:`ece` less its estimated bias: max(0, 2 ece - mean_b ece_b).

    ece_b is the error with the accuracy of each bin redrawn from normal(acc_m, acc_m (1 - acc_m) / n_m),
    1,000 times. A bin with one doc says nothing about its bias and is not corrected.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of equal-width bins.
        seed: Seed of ``np.random.default_rng``.

    Returns:
        A probability, 0 (best) to 1; nan with UndefinedMetricWarning where no bin holds two docs.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Kumar et al. 2019, arXiv:1909.10155.
    """
    conf, hit = check_top_label(confidence, correct)
    value = _ece_debiased(conf, hit, check_n_bins(n_bins), seed)
    return undefined("ece_debiased is undefined: no bin holds two docs") if np.isnan(value) else value


def ece_debiased_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`ece_debiased`: bootstrap over docs; nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    n_bins = check_n_bins(n_bins)
    if np.isnan(_ece_debiased(conf, hit, n_bins, seed)):
        return undefined("ece_debiased is undefined: no bin holds two docs")
    return bootstrap_stderr(lambda c, h: _ece_debiased(c, h, n_bins, seed), conf, hit, draws=draws, seed=seed)


def ce_l2_debiased(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Debiased l2 calibration error over equal-mass bins.

    sqrt(max(0, sum_m (n_m / N) [(acc_m - conf_m)^2 - acc_m (1 - acc_m) / (n_m - 1)])).

    Bins are separated half-way between the neighbours of the ``np.array_split`` ranges, so equal confidences
    stay together; a bin with one doc adds 0.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of bins.

    Returns:
        A probability, 0 (best) to 1; nan with UndefinedMetricWarning where N < 2 n_bins.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Kumar et al. 2019, arXiv:1909.10155.
    """
    conf, hit = check_top_label(confidence, correct)
    n_bins = check_n_bins(n_bins)
    if len(conf) < 2 * n_bins:
        return undefined(_too_few(len(conf), n_bins))
    return _ce_l2_debiased(conf, hit, n_bins)


def ce_l2_debiased_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`ce_l2_debiased`: bootstrap over docs; nan where N < 2 n_bins."""
    conf, hit = check_top_label(confidence, correct)
    n_bins = check_n_bins(n_bins)
    if len(conf) < 2 * n_bins:
        return undefined(_too_few(len(conf), n_bins))
    return bootstrap_stderr(lambda c, h: _ce_l2_debiased(c, h, n_bins), conf, hit, draws=draws, seed=seed)


def smece(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Smooth calibration error: kernel-smoothed ECE whose bandwidth equals its value. No bins.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        A probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.
        ImportError: The package relplot is not installed.

    Source: Błasiok & Nakkiran 2023, arXiv:2309.12236; computed by their package relplot.
    """
    return _smece(*check_top_label(confidence, correct))


def smece_stderr(confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`smece`: bootstrap over docs; nan for one doc."""
    return bootstrap_stderr(_smece, *check_top_label(confidence, correct), draws=draws, seed=seed)


def acc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Accuracy, mean of h_i: what the other metrics stand beside. The confidences have no influence.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        A share, 0 to 1 (best). Of multiple-choice docs it is the harness's ``acc``.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    return float(np.mean(check_top_label(confidence, correct)[1]))


def acc_stderr(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Standard error of :func:`acc`: sd(h, ddof=1) / sqrt(N); nan for one doc."""
    return mean_stderr(check_top_label(confidence, correct)[1])


def overconfidence(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean confidence less accuracy: mean_i (c_i - h_i).

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        A difference of probabilities, -1 to 1; above 0 the model is overconfident, below 0 underconfident.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(np.mean(conf - hit))


def overconfidence_stderr(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Standard error of :func:`overconfidence`: sd(c - h, ddof=1) / sqrt(N); nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    return mean_stderr(conf - hit)


def confident_error_rate(confidence: ArrayLike, correct: ArrayLike, *, threshold: float = 0.9) -> float:
    """Error rate among the docs answered with confidence: mean of 1 - h_i over c_i >= threshold.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        threshold: Confidence from which a doc counts, in [0, 1].

    Returns:
        A rate, 0 (best) to 1; nan with UndefinedMetricWarning where no doc reaches the threshold. For a
        calibrated model it is at most 1 - threshold on average.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    value = _confident_error_rate(conf, hit, check_probability("threshold", threshold))
    if np.isnan(value):
        return undefined(f"confident_error_rate is undefined: no doc has confidence >= {threshold}")
    return value


def confident_error_rate_stderr(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    threshold: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """Standard error of :func:`confident_error_rate`: bootstrap over docs.

    Nan where fewer than two docs reach the threshold.
    """
    conf, hit = check_top_label(confidence, correct)
    threshold = check_probability("threshold", threshold)
    if np.count_nonzero(conf >= threshold) < 2:
        return undefined(f"a standard error needs at least two docs with confidence >= {threshold}")
    return bootstrap_stderr(lambda c, h: _confident_error_rate(c, h, threshold), conf, hit, draws=draws, seed=seed)


def _bin_gaps(conf: FloatArray, hit: FloatArray, n_bins: int) -> tuple[FloatArray, IntArray]:
    """Sum of (correct - confidence) in each equal-width bin, and the number of docs in it."""
    index = bin_index(conf, n_bins)
    return bin_sums(index, hit - conf, n_bins), np.bincount(index, minlength=n_bins)


def _doc_bins(confidence: ArrayLike, correct: ArrayLike, n_bins: int) -> tuple[FloatArray, IntArray]:
    """What each doc adds to the gaps and the counts of the bins, [N, 2 n_bins], and its bin."""
    conf, hit = check_top_label(confidence, correct)
    n_bins = check_n_bins(n_bins)
    index = bin_index(conf, n_bins)
    sums = np.zeros((len(conf), 2 * n_bins))
    sums[np.arange(len(conf)), index] = hit - conf
    sums[np.arange(len(conf)), n_bins + index] = 1
    return sums, index


def _halves(totals: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gaps and counts of the bins, from their totals side by side."""
    gaps, counts = np.split(totals, 2, axis=-1)
    return gaps, counts


# The formulas take gaps n_m (acc_m - conf_m) and counts n_m, [..., n_bins]: one sample, or all draws at once.


def _ece(gaps: FloatArray, counts: FloatArray | IntArray) -> FloatArray:
    return np.asarray(np.abs(gaps).sum(axis=-1) / counts.sum(axis=-1))


def _mce(gaps: FloatArray, counts: FloatArray | IntArray) -> FloatArray:
    return np.asarray(np.max(np.abs(gaps) / np.maximum(counts, 1), axis=-1))


def _rms_ce(gaps: FloatArray, counts: FloatArray | IntArray) -> FloatArray:
    squares = (gaps**2 / np.maximum(counts, 1)).sum(axis=-1)
    return np.asarray(np.sqrt(squares / counts.sum(axis=-1)))


def _ece_debiased(conf: FloatArray, hit: FloatArray, n_bins: int, seed: int) -> float:
    index = bin_index(conf, n_bins)
    counts = np.bincount(index, minlength=n_bins)
    if counts.max() < 2:
        return float("nan")
    size = np.maximum(counts, 1)
    acc = bin_sums(index, hit, n_bins) / size
    mean_conf = bin_sums(index, conf, n_bins) / size
    rng = np.random.default_rng(seed)
    redrawn = rng.normal(acc, np.sqrt(acc * (1 - acc) / size), size=(DEBIASING_DRAWS, n_bins))
    plug_in = _ece(counts * (acc - mean_conf), counts)
    resampled = _ece(counts * (redrawn - mean_conf), counts)
    return float(max(0, 2 * plug_in - resampled.mean()))


def _ce_l2_debiased(conf: FloatArray, hit: FloatArray, n_bins: int) -> float:
    ranges = np.array_split(np.sort(conf), n_bins)
    between = [(left[-1] + right[0]) / 2 for left, right in pairwise(ranges)]
    index = np.searchsorted(between, conf, side="left")
    counts = np.bincount(index, minlength=n_bins)
    size = np.maximum(counts, 2)  # bins with fewer docs add nothing below
    acc = bin_sums(index, hit, n_bins) / size
    mean_conf = bin_sums(index, conf, n_bins) / size
    square = (acc - mean_conf) ** 2 - acc * (1 - acc) / (size - 1)
    return float(np.sqrt(max(0, np.sum(counts * square, where=counts > 1) / len(conf))))


def _smece(conf: FloatArray, hit: FloatArray) -> float:
    try:
        import relplot
    except ImportError as error:
        raise ImportError("smece needs the package relplot: pip install relplot") from error
    return float(relplot.smECE(conf, hit))


def _confident_error_rate(conf: FloatArray, hit: FloatArray, threshold: float) -> float:
    confident = hit[conf >= threshold]
    return float(np.mean(1 - confident)) if confident.size else float("nan")


def _too_few(n_docs: int, n_bins: int) -> str:
    return f"ce_l2_debiased is undefined: {n_docs} docs are fewer than two for each of {n_bins} bins"
