"""The estimate behind every interval and every comparison: value, ends, and what each doc does to it.

One function a metric, on arrays that are checked already. Means have t intervals; ``auroc`` DeLong's standard
error on the logit scale; the other ranking metrics and ``skill_score`` their influence functions; binned
errors the inverted tests of :mod:`~lm_eval_calibration.metrics.inversion`.
"""

from itertools import pairwise

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit, xlogy

from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.gap_vectors import (
    calibrated_variance,
    choices_gaps,
    class_bin_gaps,
    class_range_gaps,
    equal_width_gaps,
    one_class_range_gaps,
    root_gaps,
    smoothed_gaps,
    top_label_range_gaps,
    vocabulary_gaps,
)
from lm_eval_calibration.metrics.inversion import Estimate, error_estimate
from lm_eval_calibration.metrics.ranking import augrc, auprc, aurc, midranks
from lm_eval_calibration.metrics.top_label import smece
from lm_eval_calibration.metrics.validation import Choices, FloatArray, IntArray, undefined

PSEUDO_DOCS = 4
"""Docs with the variance of calibrated ones that widen the interval of a mean, z^2 of them as in Wilson's."""

SMOOTHING_POINTS = 200


def undefined_estimate(n_docs: int, reason: str) -> Estimate:
    """Nan throughout, with an UndefinedMetricWarning."""
    nan = undefined(reason)
    return Estimate(nan, nan, nan, np.full(n_docs, nan))


def ece_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The sum of the gaps of equal-width bins."""
    return error_estimate(equal_width_gaps(conf, hit, n_bins), "sum", level=level, seed=seed)


def rms_ce_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The root of the squared gaps of equal-width bins."""
    vector = root_gaps(conf, hit, bin_index(conf, n_bins), n_bins)
    return error_estimate(vector, "root", level=level, seed=seed)


def ce_l2_debiased_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The root of the squared gaps of the equal-mass bins of ``ce_l2_debiased``."""
    if len(conf) < 2 * n_bins:
        return undefined_estimate(len(conf), f"{len(conf)} docs are fewer than two for each of {n_bins} bins")
    ranges = np.array_split(np.sort(conf), n_bins)
    between = [(left[-1] + right[0]) / 2 for left, right in pairwise(ranges)]
    index = np.searchsorted(between, conf, side="left")
    return error_estimate(root_gaps(conf, hit, index, n_bins), "root", level=level, seed=seed)


def mce_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float) -> Estimate:
    """Clopper-Pearson intervals of the accuracy of each bin that hold together (Bonferroni)."""
    vector, index = equal_width_gaps(conf, hit, n_bins), bin_index(conf, n_bins)
    if len(conf) < 2:
        return undefined_estimate(len(conf), "an interval needs at least two docs")
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


def ace_top_label_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The sum of the gaps of equal-mass ranges."""
    return error_estimate(top_label_range_gaps(conf, hit, n_bins), "sum", level=level, seed=seed)


def ace_one_class_estimate(conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The mean error of equal-mass ranges."""
    return error_estimate(one_class_range_gaps(conf, hit, n_bins), "sum", level=level, seed=seed)


def smece_estimate(conf: FloatArray, hit: FloatArray, *, level: float, seed: int) -> Estimate:
    """The smoothed error at the bandwidth that the docs chose, which is the value itself."""
    if len(conf) < 2:
        return undefined_estimate(len(conf), "an interval needs at least two docs")
    bandwidth = max(smece(conf, hit), 1 / SMOOTHING_POINTS)
    vector = smoothed_gaps(conf, hit, bandwidth, SMOOTHING_POINTS)
    return error_estimate(vector, "sum", level=level, seed=seed)


def ace_estimate(choices: Choices, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The mean error of equal-mass ranges of every class."""
    return error_estimate(class_range_gaps(choices, n_bins), "sum", level=level, seed=seed)


def sce_estimate(choices: Choices, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The mean over classes of the sum of the gaps of equal-width bins."""
    return error_estimate(class_bin_gaps(choices, n_bins), "sum", level=level, seed=seed)


def full_ece_choices_estimate(choices: Choices, *, n_bins: int, level: float, seed: int) -> Estimate:
    """The sum of the gaps of equal-width bins of all choices."""
    return error_estimate(choices_gaps(choices, n_bins), "sum", level=level, seed=seed, largest=2.0)


def full_ece_estimate(gap_sums: FloatArray, n_positions: IntArray, *, level: float, seed: int) -> Estimate:
    """The sum of the gaps of equal-width bins of all vocabulary entries."""
    return error_estimate(vocabulary_gaps(gap_sums, n_positions), "sum", level=level, seed=seed, largest=2.0)


def brier_score_estimate(choices: Choices, *, level: float) -> Estimate:
    """The mean squared error over all choices."""
    n_docs, p = len(choices.n_choices), choices.probs
    values = bin_sums(choices.doc, (p - choices.hits) ** 2, n_docs)
    square, cube = bin_sums(choices.doc, p**2, n_docs), bin_sums(choices.doc, p**3, n_docs)
    return _mean_estimate(values, 4 * (cube - square**2), level=level, low=0, high=2)


def nll_estimate(choices: Choices, *, level: float) -> Estimate:
    """The mean negative log-likelihood."""
    n_docs, p = len(choices.n_choices), choices.probs
    log_p = np.log(np.maximum(p, 1e-300))
    entropy, square = bin_sums(choices.doc, p * log_p, n_docs), bin_sums(choices.doc, p * log_p**2, n_docs)
    if np.any(p[choices.hits == 1] == 0):
        return undefined_estimate(n_docs, "an interval of nll needs finite values: some gold choice has probability 0")
    return _mean_estimate(-log_p[choices.hits == 1] + 0.0, square - entropy**2, level=level, low=0, high=np.inf)


def brier_top_label_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """The mean of (c - h)^2."""
    calibrated = calibrated_variance(conf, len(conf)) * (1 - 2 * conf) ** 2
    return _mean_estimate((conf - hit) ** 2, calibrated, level=level, low=0, high=1)


def overconfidence_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """The mean of c - h."""
    return _mean_estimate(conf - hit, calibrated_variance(conf, len(conf)), level=level, low=-1, high=1)


def acc_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """Wilson's interval of a share."""
    rate = float(hit.mean())
    return Estimate(rate, *_wilson(rate, len(conf), level), hit - rate)


def confident_error_rate_estimate(conf: FloatArray, hit: FloatArray, *, threshold: float, level: float) -> Estimate:
    """Wilson's interval of a share."""
    member = conf >= threshold
    n = int(np.count_nonzero(member))
    if n == 0:
        return undefined_estimate(len(conf), f"confident_error_rate is undefined: no doc has confidence >= {threshold}")
    rate = float(np.mean(1 - hit[member]))
    return Estimate(rate, *_wilson(rate, n, level), member * (1 - hit - rate) * len(conf) / n)


def skill_score_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """Delta method on the means of (c - h)^2 and h, with a t quantile."""
    accuracy = hit.mean()
    if accuracy in (0, 1):
        return undefined_estimate(len(conf), "skill_score is undefined: accuracy is 0 or 1")
    square, spread = (conf - hit) ** 2, accuracy * (1 - accuracy)
    value = 1 - square.mean() / spread
    influence = -(square - square.mean()) / spread + square.mean() * (1 - 2 * accuracy) * (hit - accuracy) / spread**2
    half = _t(level, len(conf)) * np.std(influence, ddof=1) / np.sqrt(len(conf))
    return Estimate(float(value), float(value - half), float(min(1, value + half)), influence)


def auroc_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """DeLong's standard error on the logit scale; Newcombe's interval where there is none.

    Complete separation, one confidence for all, or one doc of a class leave DeLong without a variance. In
    Newcombe's interval it is Hanley and McNeil's at the hypothesised value.
    """
    n_right, n_wrong = int(hit.sum()), int(len(hit) - hit.sum())
    if min(n_right, n_wrong) == 0:
        return undefined_estimate(len(conf), f"auroc is undefined: every doc is {'correct' if n_right else 'wrong'}")
    rank = midranks(conf)
    beats = np.empty(len(conf))
    beats[hit == 1] = (rank[hit == 1] - midranks(conf[hit == 1])) / n_wrong
    beats[hit == 0] = 1 - (rank[hit == 0] - midranks(conf[hit == 0])) / n_right
    value = float(beats[hit == 1].mean())
    influence = (beats - value) * len(conf) / np.where(hit == 1, n_right, n_wrong)
    if min(n_right, n_wrong) > 1:
        variance = np.var(beats[hit == 1], ddof=1) / n_right + np.var(beats[hit == 0], ddof=1) / n_wrong
        if variance > 0 and 0 < value < 1:
            ends = _logit_interval(value, float(np.sqrt(variance)), _t(level, 2 * min(n_right, n_wrong)))
            return Estimate(value, *ends, influence)
    return Estimate(value, *_newcombe(value, n_right, n_wrong, _z(level)), influence)


def aurc_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """E[wrong_i L_i], L_i the mean of -log u over the shares a < u < b that doc i and its ties take.

    One more doc above a group of ties moves both of its ends up, one more doc in it moves b.
    """
    wrong = 1 - hit
    _, group, size = np.unique(-conf, return_inverse=True, return_counts=True)
    n_docs, b = len(conf), np.cumsum(size) / len(conf)
    a = np.append(0, b[:-1])
    mean_log = (b - xlogy(b, b) - a + xlogy(a, a)) * n_docs / size
    mass = bin_sums(group, wrong, len(size)) / size  # per share of docs
    by_b = -mass * (np.log(b) + mean_log)
    by_a = mass * (np.log(a, out=np.zeros(len(a)), where=a > 0) + mean_log) * (a > 0)
    at_or_below = np.cumsum(by_b[::-1])[::-1]
    below = np.cumsum(by_a[::-1])[::-1] - by_a
    influence = wrong * mean_log[group] + (at_or_below + below)[group]
    return _ranking_estimate(aurc(conf, hit), influence, level=level, largest=1)


def augrc_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """E[wrong_i (1 - u_i)], u_i the share of docs above doc i (ties half)."""
    wrong = 1 - hit
    influence = wrong * _mean_below(conf, np.ones(len(conf))) + _mean_above(conf, wrong)
    return _ranking_estimate(augrc(conf, hit), influence, level=level, largest=0.5)


def auprc_estimate(conf: FloatArray, hit: FloatArray, *, level: float) -> Estimate:
    """E[h_i r_i / u_i] / E[h], r_i the share of docs that are correct and above doc i (ties half)."""
    if not hit.any():
        return undefined_estimate(len(conf), "auprc is undefined: no doc is correct")
    value, above, right = auprc(conf, hit), _mean_above(conf, np.ones(len(conf))), _mean_above(conf, hit)
    influence = (
        hit * right / above
        + hit * _mean_below(conf, hit / above)
        - _mean_below(conf, hit * right / above**2)
        - value * hit
    ) / hit.mean()
    return _ranking_estimate(value, influence, level=level, largest=1)


def _mean_estimate(values: FloatArray, calibrated: FloatArray, *, level: float, low: float, high: float) -> Estimate:
    """Mean with a t interval; its variance counts PSEUDO_DOCS more docs, whose variance is ``calibrated``.

    Without them twenty docs that are all correct would have an interval of width 0.
    """
    n_docs, mean = len(values), float(values.mean())
    influence = values - mean
    if n_docs < 2:
        return undefined_estimate(n_docs, "an interval needs at least two docs")
    squares = np.sum(influence**2) / (n_docs - 1) * n_docs + PSEUDO_DOCS * calibrated.mean()
    half = _t(level, n_docs) * np.sqrt(squares) / n_docs
    return Estimate(mean, float(max(low, mean - half)), float(min(high, mean + half)), influence)


def _ranking_estimate(value: float, influence: FloatArray, *, level: float, largest: float) -> Estimate:
    """Normal on the logit scale of value / largest, from the influence of each doc."""
    n_docs, influence = len(influence), influence - influence.mean()
    if n_docs < 2:
        return undefined_estimate(n_docs, "an interval needs at least two docs")
    stderr = float(np.std(influence, ddof=1) / np.sqrt(n_docs))
    if not 0 < value < largest or stderr == 0:
        return undefined_estimate(n_docs, "no interval: every doc is correct or none is, or the value is at its limit")
    low, high = _logit_interval(value / largest, stderr / largest, _t(level, n_docs))
    return Estimate(value, low * largest, high * largest, influence)


def _wilson(rate: float, n: int, level: float) -> tuple[float, float]:
    z = _z(level)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return float(max(0, min(rate, middle - half))), float(min(1, max(rate, middle + half)))


def _logit_interval(value: float, stderr: float, quantile: float) -> tuple[float, float]:
    middle, half = logit(value), quantile * stderr / (value * (1 - value))
    return float(expit(middle - half)), float(expit(middle + half))


def _newcombe(value: float, n_right: int, n_wrong: int, z: float) -> tuple[float, float]:
    """Areas whose own standard error puts the observed one z of them away (Newcombe 2006, method 5)."""
    from scipy.optimize import brentq

    n = (n_right + n_wrong) / 2 - 1

    def distance(area: float) -> float:
        spread = 1 + n * (1 - area) / (2 - area) + n * area / (1 + area)
        return (value - area) ** 2 - z**2 * area * (1 - area) * spread / (n_right * n_wrong)

    edge = 1e-12  # distance is 0 at 0 and 1 itself where that is the value
    low = brentq(distance, 0, min(value, 1 - edge)) if value > 0 else 0.0
    high = brentq(distance, max(value, edge), 1) if value < 1 else 1.0
    return float(low), float(high)


def _mean_below(conf: FloatArray, values: FloatArray) -> FloatArray:
    """For each doc i the mean over j of values_j where c_j < c_i, half of it where c_j = c_i."""
    _, group = np.unique(conf, return_inverse=True)
    totals = bin_sums(group, values, int(group.max()) + 1)
    return np.asarray((np.cumsum(totals) - totals / 2)[group] / len(conf))


def _mean_above(conf: FloatArray, values: FloatArray) -> FloatArray:
    """For each doc i the mean over j of values_j where c_j > c_i, half of it where c_j = c_i."""
    return np.asarray(values.mean() - _mean_below(conf, values))


def _z(level: float) -> float:
    return float(-ndtri((1 - level) / 2))


def _t(level: float, n_docs: int) -> float:
    return float(-stdtrit(n_docs - 1, (1 - level) / 2))
