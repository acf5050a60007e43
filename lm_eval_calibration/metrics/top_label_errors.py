"""Top-label calibration errors: is a doc answered with confidence c right with probability c?

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, equal_mass_gaps
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty.gap_vectors import (
    GapVector,
    calibrated_variance,
    equal_width_gaps,
    root_gaps,
    smoothed_gaps,
    top_label_range_gaps,
)
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, t_interval, too_few_docs, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.inversion import error_estimate, inverted_tests
from lm_eval_calibration.metrics.uncertainty.nulls import (
    bins_membership,
    drawn_errors,
    drawn_gaps,
    drawn_totals,
    forecasts_of_docs,
    ranges_membership,
    redraw_correct,
    redrawn,
)
from lm_eval_calibration.metrics.uncertainty.ranges import ranges_stderr, sort_forecasts
from lm_eval_calibration.metrics.uncertainty.resampling import binned_stderr, mean_of
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_n_bins, check_top_label, undefined

DEBIASING_DRAWS = 1000
"""Gaussian resamples that estimate the bias of the plug-in error, as in Kumar et al.'s code."""

SMOOTHING_POINTS = 200

SMOOTHING_DRAWS = 200
"""Draws of the null of ``smece``, which takes a tenth of a second at 14,042 docs."""

Counts = FloatArray | IntArray
Formula = Callable[[FloatArray, Counts], FloatArray]


# The formulas take gaps n_m (acc_m - conf_m) and counts n_m, [..., n_bins]: one sample, or all draws at once.


def _ece(gaps: FloatArray, counts: Counts) -> FloatArray:
    return np.asarray(np.abs(gaps).sum(axis=-1) / counts.sum(axis=-1))


def _mce(gaps: FloatArray, counts: Counts) -> FloatArray:
    return np.asarray(np.max(np.abs(gaps) / np.maximum(counts, 1), axis=-1))


def _rms_ce(gaps: FloatArray, counts: Counts) -> FloatArray:
    squares = (gaps**2 / np.maximum(counts, 1)).sum(axis=-1)
    return np.asarray(np.sqrt(squares / counts.sum(axis=-1)))


def _bins_value(formula: Formula, confidence: ArrayLike, correct: ArrayLike, n_bins: int) -> float:
    """The formula over equal-width bins."""
    conf, hit = check_top_label(confidence, correct)
    index = bin_index(conf, n_bins)
    return float(formula(bin_sums(index, hit - conf, n_bins), np.bincount(index, minlength=n_bins)))


def _bins_stderr(formula: Formula, conf: FloatArray, hit: FloatArray, *, n_bins: int, draws: int, seed: int) -> float:
    doc, index = np.arange(len(conf)), bin_index(conf, n_bins)
    gaps, counts = np.zeros((2, len(conf), n_bins))
    gaps[doc, index], counts[doc, index] = hit - conf, 1
    return binned_stderr(formula, gaps, counts, draws=draws, seed=seed, strata=index)


def _bins_null(formula: Formula, conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int) -> FloatArray:
    index = bin_index(conf, n_bins)
    gaps = drawn_gaps(forecasts_of_docs(conf), bins_membership(index, n_bins), seed)
    return formula(gaps, np.bincount(index, minlength=n_bins))


@metric(
    "top_label",
    higher_is_better=False,
    core=("choices", "generation"),
    order=2,
    stderr=partial(_bins_stderr, _ece),
    estimate=inverted_tests(equal_width_gaps),
    null=partial(_bins_null, _ece),
)
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
    return _bins_value(_ece, confidence, correct, n_bins)


def _mce_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float) -> Estimate:
    """Clopper-Pearson intervals of the accuracy of each bin that hold together (Bonferroni).

    They cover more often than ``level`` and are wide wherever some bin has few docs: that is how little these say
    about a maximum.
    """
    vector, index = equal_width_gaps(conf, hit, n_bins=n_bins), bin_index(conf, n_bins)
    if reason := too_few_docs(len(conf)):
        return undefined_estimate(len(conf), reason)
    counts = np.bincount(index, minlength=n_bins)
    live = counts > 0
    n, right = counts[live], bin_sums(index, hit, n_bins)[live]
    mean_conf = bin_sums(index, conf, n_bins)[live] / n
    tail = (1 - level) / 2 / np.count_nonzero(live)
    lowest = np.where(right > 0, betaincinv(np.maximum(right, 1), n - right + 1, tail), 0)
    highest = np.where(right < n, betaincinv(right + 1, np.maximum(n - right, 1), 1 - tail), 1)
    nearest = np.maximum(np.maximum(lowest - mean_conf, mean_conf - highest), 0)
    farthest = np.maximum(highest - mean_conf, mean_conf - lowest)
    error = right / n - mean_conf
    worst = int(np.argmax(np.abs(error)))
    influence = vector.influence[:, np.flatnonzero(live)[worst]] * np.sign(error[worst]) * len(conf) / n[worst]
    return Estimate(float(np.abs(error[worst])), float(nearest.max()), float(farthest.max()), influence)


@metric(
    "top_label",
    higher_is_better=False,
    order=9,
    stderr=partial(_bins_stderr, _mce),
    estimate=_mce_estimate,
    null=partial(_bins_null, _mce),
)
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
    return _bins_value(_mce, confidence, correct, n_bins)


def _rms_gaps(conf: FloatArray, hit: FloatArray, *, n_bins: int) -> GapVector:
    return root_gaps(conf, hit, bin_index(conf, n_bins), n_bins)


@metric(
    "top_label",
    higher_is_better=False,
    order=10,
    stderr=partial(_bins_stderr, _rms_ce),
    estimate=inverted_tests(_rms_gaps, "root"),
    null=partial(_bins_null, _rms_ce),
)
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
    return _bins_value(_rms_ce, confidence, correct, n_bins)


def _ranges_stderr(conf: FloatArray, hit: FloatArray, *, n_bins: int, draws: int, seed: int) -> float:
    ranked = sort_forecasts(np.arange(len(conf)), conf, hit)
    return ranges_stderr(
        lambda gaps, sizes: _ece(gaps[:, 0], sizes[:, 0]), [ranked], len(conf), n_bins=n_bins, draws=draws, seed=seed
    )


def _ranges_null(conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int) -> FloatArray:
    scale = np.full(n_bins, 1 / len(conf))
    return drawn_errors(forecasts_of_docs(conf), ranges_membership(conf, scale), seed)


@metric(
    "top_label",
    higher_is_better=False,
    order=6,
    stderr=_ranges_stderr,
    estimate=inverted_tests(top_label_range_gaps),
    null=_ranges_null,
)
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


@metric("top_label", higher_is_better=False, order=13, estimate=inverted_tests(equal_width_gaps))
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
    index = bin_index(conf, n_bins)
    counts = np.bincount(index, minlength=n_bins)
    if counts.max() < 2:
        return undefined("ece_debiased is undefined: no bin holds two docs")
    size = np.maximum(counts, 1)
    acc, mean_conf = bin_sums(index, hit, n_bins) / size, bin_sums(index, conf, n_bins) / size
    rng = np.random.default_rng(seed)
    redrawn_acc = rng.normal(acc, np.sqrt(acc * (1 - acc) / size), size=(DEBIASING_DRAWS, n_bins))
    plug_in = _ece(counts * (acc - mean_conf), counts)
    resampled = _ece(counts * (redrawn_acc - mean_conf), counts)
    return float(max(0, 2 * plug_in - resampled.mean()))


def _separated_bins(conf: FloatArray, n_bins: int) -> IntArray:
    """Bins separated half-way between the neighbours of the ``np.array_split`` ranges."""
    ranges = np.array_split(np.sort(conf), n_bins)
    between = [(left[-1] + right[0]) / 2 for left, right in pairwise(ranges)]
    return np.searchsorted(between, conf, side="left")


def _too_few_for_bins(n_docs: int, n_bins: int) -> str | None:
    reason = f"ce_l2_debiased is undefined: {n_docs} docs are fewer than two for each of {n_bins} bins"
    return reason if n_docs < 2 * n_bins else None


def _l2_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    if reason := _too_few_for_bins(len(conf), n_bins):
        return undefined_estimate(len(conf), reason)
    vector = root_gaps(conf, hit, _separated_bins(conf, n_bins), n_bins)
    return error_estimate(vector, "root", level=level, seed=seed)


@metric("top_label", higher_is_better=False, order=14, estimate=_l2_estimate)
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
    if reason := _too_few_for_bins(len(conf), check_n_bins(n_bins)):
        return undefined(reason)
    index = _separated_bins(conf, n_bins)
    counts = np.bincount(index, minlength=n_bins)
    size = np.maximum(counts, 2)  # bins with fewer docs add nothing below
    acc, mean_conf = bin_sums(index, hit, n_bins) / size, bin_sums(index, conf, n_bins) / size
    square = (acc - mean_conf) ** 2 - acc * (1 - acc) / (size - 1)
    return float(np.sqrt(max(0, np.sum(counts * square, where=counts > 1) / len(conf))))


def _smece_estimate(conf: FloatArray, hit: FloatArray, *, level: float, seed: int) -> Estimate:
    """The smoothed error at the bandwidth that the docs chose, which is the value itself."""
    if reason := too_few_docs(len(conf)):
        return undefined_estimate(len(conf), reason)
    bandwidth = max(smece(conf, hit), 1 / SMOOTHING_POINTS)
    vector = smoothed_gaps(conf, hit, bandwidth, SMOOTHING_POINTS)
    return error_estimate(vector, "sum", level=level, seed=seed)


def _smece_null(conf: FloatArray, hit: FloatArray, *, seed: int) -> FloatArray:
    return redrawn(redraw_correct, smece, conf, hit, seed=seed, draws=SMOOTHING_DRAWS)


@metric("top_label", higher_is_better=False, order=15, requires="relplot", estimate=_smece_estimate, null=_smece_null)
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
    conf, hit = check_top_label(confidence, correct)
    try:
        import relplot
    except ImportError as error:
        raise ImportError("smece needs the package relplot: pip install relplot") from error
    return float(relplot.smECE(conf, hit))


def _gaps_of_docs(conf: FloatArray, hit: FloatArray) -> FloatArray:
    return conf - hit


def _variance_of_docs(conf: FloatArray, hit: FloatArray) -> FloatArray:
    return calibrated_variance(conf, len(conf))


def _overconfidence_null(conf: FloatArray, hit: FloatArray, *, seed: int) -> FloatArray:
    right = drawn_totals(forecasts_of_docs(conf), np.ones(len(conf)), seed)
    return np.asarray(conf.mean() - right / len(conf))


@metric(
    "top_label",
    higher_is_better=None,
    order=19,
    stderr=mean_of(_gaps_of_docs),
    estimate=t_interval(_gaps_of_docs, _variance_of_docs, limits=(-1, 1)),
    null=_overconfidence_null,
)
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
    return float(np.mean(_gaps_of_docs(*check_top_label(confidence, correct))))
