"""Areas under curves that go down the docs from the most confident one: aurc, augrc, auprc.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import intervals
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.resampling import resampling_weights, spread
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_top_label, undefined

NONE_CORRECT = "auprc is undefined: no doc is correct"

Formula = Callable[[FloatArray, FloatArray], FloatArray]

# The formulas take docs [..., G] and correct docs [..., G] of the G groups of equal confidence, the most confident
# first: one sample, or all resamples at once. The j-th doc of a group of n, q of them correct, after b docs, is correct
# with probability q / n, and the docs before it in the group with probability (q - 1) / (n - 1) if it is.


def _reached(docs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Docs before each group, and sum_j 1 / (b + j) over the docs of each group."""
    upto = np.cumsum(docs, axis=-1)
    before = upto - docs
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, upto[..., -1].max() + 1)))
    return before, harmonic[upto.astype(np.int64)] - harmonic[before.astype(np.int64)]


def _before(values: FloatArray) -> FloatArray:
    return np.asarray(np.cumsum(values, axis=-1) - values)


def _aurc(docs: FloatArray, right: FloatArray) -> FloatArray:
    """Mean over the docs of (E + j e) / (b + j), E wrong docs before the group and a share e of it wrong."""
    before, inverse = _reached(docs)
    wrong = docs - right
    share = wrong / np.maximum(docs, 1)
    return np.asarray((wrong + (_before(wrong) - before * share) * inverse).sum(axis=-1) / docs.sum(axis=-1))


def _augrc(docs: FloatArray, right: FloatArray) -> FloatArray:
    """Mean over the docs of (E + j e - e / 2) / N: trapezium between one doc and the next."""
    wrong = docs - right
    return np.asarray((docs * (_before(wrong) + wrong / 2)).sum(axis=-1) / docs.sum(axis=-1) ** 2)


def _auprc(docs: FloatArray, right: FloatArray) -> FloatArray:
    """Mean over the correct docs of (R + 1 + (j - 1) (q - 1) / (n - 1)) / (b + j); nan where no doc is correct."""
    before, inverse = _reached(docs)
    others = (right - 1) / np.maximum(docs - 1, 1)
    precision = docs * others + (_before(right) + 1 - (before + 1) * others) * inverse
    n_right = right.sum(axis=-1)
    found = np.full(n_right.shape, np.nan)
    total = (right / np.maximum(docs, 1) * precision).sum(axis=-1)
    np.divide(total, n_right, out=found, where=n_right > 0)
    return found


def _area(formula: Formula, confidence: ArrayLike, correct: ArrayLike) -> float:
    conf, hit = check_top_label(confidence, correct)
    _, group, size = np.unique(-conf, return_inverse=True, return_counts=True)
    return float(formula(size.astype(np.float64), bin_sums(group, hit, len(size))))


def _area_stderr(
    formula: Formula,
    conf: FloatArray,
    hit: FloatArray,
    *,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> float:
    """A bootstrap over docs or clusters, all resamples of a chunk at once."""
    order = np.argsort(-conf, kind="stable")
    ranked, right = -conf[order], hit[order]
    starts = np.append(0, np.flatnonzero(ranked[1:] > ranked[:-1]) + 1)
    drawn_together = np.arange(len(conf)) if cluster is None else cluster
    areas = []
    for weights in resampling_weights(int(drawn_together.max()) + 1, draws, seed):
        drawn = weights.take(drawn_together[order], axis=1).astype(np.float64)
        areas.append(formula(np.add.reduceat(drawn, starts, axis=1), np.add.reduceat(drawn * right, starts, axis=1)))
    return spread(np.concatenate(areas), n_docs=len(conf))


def _aurc_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
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
    return intervals.area_estimate(aurc(conf, hit), influence, hit, level=level, largest=1, cluster=cluster)


@metric(
    "top_label",
    higher_is_better=False,
    order=16,
    by_order=True,
    has_null=False,
    stderr=partial(_area_stderr, _aurc),
    estimate=_aurc_estimate,
)
def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over n = 1..N of the error rate of the n most confident docs.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns an error rate, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    return _area(_aurc, confidence, correct)


def _mean_below(conf: FloatArray, values: FloatArray) -> FloatArray:
    """For each doc i the mean over j of values_j where c_j < c_i, half of it where c_j = c_i."""
    _, group = np.unique(conf, return_inverse=True)
    totals = bin_sums(group, values, int(group.max()) + 1)
    return np.asarray((np.cumsum(totals) - totals / 2)[group] / len(conf))


def _mean_above(conf: FloatArray, values: FloatArray) -> FloatArray:
    """For each doc i the mean over j of values_j where c_j > c_i, half of it where c_j = c_i."""
    return np.asarray(values.mean() - _mean_below(conf, values))


def _augrc_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """E[wrong_i (1 - u_i)], u_i the share of docs above doc i (ties half)."""
    wrong = 1 - hit
    influence = wrong * _mean_below(conf, np.ones(len(conf))) + _mean_above(conf, wrong)
    return intervals.area_estimate(augrc(conf, hit), influence, hit, level=level, largest=0.5, cluster=cluster)


@metric(
    "top_label",
    higher_is_better=False,
    order=17,
    by_order=True,
    has_null=False,
    stderr=partial(_area_stderr, _augrc),
    estimate=_augrc_estimate,
)
def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the generalized risk-coverage curve: (share of docs both answered and wrong) over coverage.

    Equal to (1 - auroc) a (1 - a) + (1 - a)^2 / 2, a the accuracy, where auroc is defined.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns mean probability of a silent error, 0 (best) to 1/2. Raises ValueError for bad input, naming the row and
    the value.
    Source: Traub et al. 2024, arXiv:2407.01032.
    """
    return _area(_augrc, confidence, correct)


def _auprc_stderr(
    conf: FloatArray, hit: FloatArray, *, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    if not hit.any():
        return undefined(NONE_CORRECT)
    return _area_stderr(_auprc, conf, hit, draws=draws, seed=seed, cluster=cluster)


def _auprc_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """E[h_i r_i / u_i] / E[h], r_i the share of docs that are correct and above doc i (ties half)."""
    if not hit.any():
        return intervals.undefined_estimate(len(conf), NONE_CORRECT)
    value, above, right = auprc(conf, hit), _mean_above(conf, np.ones(len(conf))), _mean_above(conf, hit)
    influence = (
        hit * right / above
        + hit * _mean_below(conf, hit / above)
        - _mean_below(conf, hit * right / above**2)
        - value * hit
    ) / hit.mean()
    return intervals.area_estimate(value, influence, hit, level=level, largest=1, cluster=cluster)


@metric(
    "top_label",
    higher_is_better=True,
    order=18,
    by_order=True,
    has_null=False,
    stderr=_auprc_stderr,
    estimate=_auprc_estimate,
)
def auprc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the precision-recall curve: mean over correct docs of the accuracy down to their rank.

    The average precision of "confident" as a sign of "correct". Its level is the accuracy: compare it only
    between models of equal accuracy.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a probability, 0 to 1 (best); nan with UndefinedMetricWarning where no doc is correct. Raises ValueError
    for bad input, naming the row and the value.
    """
    value = _area(_auprc, confidence, correct)
    return undefined(NONE_CORRECT) if np.isnan(value) else value
