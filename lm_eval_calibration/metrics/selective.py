"""Answering only where confident enough: accuracy with and without a threshold, at a coverage, and the whole curve.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.binning import tie_means
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import intervals
from lm_eval_calibration.metrics.uncertainty.clusters import event_interval
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.nulls import drawn_totals, forecasts_of_docs
from lm_eval_calibration.metrics.uncertainty.resampling import sums_stderr
from lm_eval_calibration.metrics.uncertainty.shares import Interval, share_interval
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_probability, check_top_label, undefined


class RiskCoverageCurve(NamedTuple):
    """Error rate of the n most confident docs, n = 1..N.

    Attributes:
        coverage: [N] n / N, the share of docs that is answered.
        risk: [N] error rate among them; its mean is ``aurc``.
        threshold: [N] confidence of the n-th doc: answering from it on answers n docs (more, where tied).
    """

    coverage: FloatArray
    risk: FloatArray
    threshold: FloatArray


def _acc_answers(conf: FloatArray, hit: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A wrong answer takes 1 away."""
    return 1 - hit, -np.ones(len(hit)), np.ones(len(hit))


@metric(
    "top_label",
    higher_is_better=True,
    tables=(),
    order=0,
    has_null=False,
    **intervals.mean_of(lambda conf, hit: hit, _acc_answers, limits=(0, 1)),
)
def acc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Accuracy, mean of h_i: what the other metrics stand beside. The confidences have no influence.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a share, 0 to 1 (best). Of multiple-choice docs it is the harness's ``acc``. Raises ValueError for bad
    input, naming the row and the value.
    """
    return float(np.mean(check_top_label(confidence, correct)[1]))


def _confident(conf: FloatArray, threshold: float) -> tuple[NDArray[np.bool_], str | None]:
    """The docs that reach the threshold, and why the metric is undefined where none does."""
    member = conf >= check_probability("threshold", threshold)
    reason = f"confident_error_rate is undefined: no doc has confidence >= {threshold}"
    return member, None if member.any() else reason


def _confident_stderr(
    conf: FloatArray, hit: FloatArray, *, threshold: float, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    """A bootstrap; nan where fewer than two docs reach the threshold."""
    if np.count_nonzero(_confident(conf, threshold)[0]) < 2:
        return undefined(f"a standard error needs at least two docs with confidence >= {threshold}")
    member = (conf >= threshold).astype(np.float64)
    sums = np.column_stack([member * (1 - hit), member])
    return sums_stderr(_wrong_share, sums, draws=draws, seed=seed, strata=member.astype(np.int64), cluster=cluster)


def _wrong_share(totals: FloatArray) -> FloatArray:
    """The first of two totals over the second [draws, 2]; nan where no doc was drawn that counts."""
    found = np.full(len(totals), np.nan)
    np.divide(totals[:, 0], totals[:, 1], out=found, where=totals[:, 1] > 0)
    return found


def _confident_estimate(
    conf: FloatArray, hit: FloatArray, *, threshold: float, level: float, cluster: IntArray | None = None
) -> Estimate:
    member, reason = _confident(conf, threshold)
    if reason:
        return intervals.undefined_estimate(len(conf), reason)
    n, rate = int(np.count_nonzero(member)), float(np.mean(1 - hit[member]))
    of_members = None if cluster is None else np.unique(cluster[member], return_inverse=True)[1]
    low, high = event_interval(1 - hit[member], of_members, level)
    return Estimate(rate, low, high, member * (1 - hit - rate) * len(conf) / n)


def _confident_null(
    conf: FloatArray, hit: FloatArray, *, threshold: float, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    member = (conf >= threshold).astype(np.float64)
    return np.asarray(1 - drawn_totals(forecasts_of_docs(conf, hit, cluster), member, seed) / member.sum())


@metric(
    "top_label",
    higher_is_better=False,
    order=20,
    stderr=_confident_stderr,
    estimate=_confident_estimate,
    null=_confident_null,
)
def confident_error_rate(confidence: ArrayLike, correct: ArrayLike, *, threshold: float = 0.9) -> float:
    """Error rate among the docs answered with confidence: mean of 1 - h_i over c_i >= threshold.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. threshold: confidence from which a doc
    counts, in [0, 1].
    Returns a rate, 0 (best) to 1; nan with UndefinedMetricWarning where no doc reaches the threshold. For a calibrated
    model it is at most 1 - threshold on average. Raises ValueError for bad input, naming the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    member, reason = _confident(conf, threshold)
    return undefined(reason) if reason else float(np.mean(1 - hit[member]))


def risk_coverage_curve(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """The risk-coverage curve, point for point.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns coverage, risk and threshold, each [N]; shares, 0 to 1. Raises ValueError for bad input, naming the row and
    the value.
    Source: El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    conf, hit = check_top_label(confidence, correct)
    order, n = np.argsort(-conf, kind="stable"), np.arange(1, len(conf) + 1)
    risk = np.cumsum(tie_means(conf, 1 - hit)[order]) / n
    return RiskCoverageCurve(n / len(conf), risk, conf[order])


def selective_accuracy(confidence: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8) -> float:
    """Accuracy of the most confident docs: of the ceil(coverage N) first ones.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. coverage: share of docs that is answered,
    above 0 and at most 1.
    Returns a share, 0 to 1 (best); the accuracy itself at coverage 1. Raises ValueError for bad input, naming the row
    and the value.
    Source: El-Yaniv & Wiener 2010.
    """
    answered = _n_answered(coverage, len(np.atleast_1d(np.asarray(confidence))))
    return float(1 - risk_coverage_curve(confidence, correct).risk[answered - 1])


def selective_accuracy_interval(
    confidence: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8, level: float = 0.95
) -> Interval:
    """Interval of :func:`selective_accuracy` in the population's most confident share: mid-P."""
    answered = _n_answered(coverage, len(np.atleast_1d(np.asarray(confidence))))
    rate = selective_accuracy(confidence, correct, coverage=coverage)
    return share_interval(rate * answered, answered, intervals.check_level(level))


def _n_answered(coverage: float, n_docs: int) -> int:
    if check_probability("coverage", coverage) == 0:
        raise ValueError("coverage is 0: no doc is answered")
    return max(1, int(np.ceil(coverage * n_docs - 1e-9)))
