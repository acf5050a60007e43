"""Answering only where confident enough: accuracy at a coverage, and the whole risk-coverage curve.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from lm_eval_calibration.metrics.binning import tie_means
from lm_eval_calibration.metrics.intervals import Interval, check_level
from lm_eval_calibration.metrics.validation import FloatArray, check_probability, check_top_label


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


def risk_coverage_curve(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """The risk-coverage curve, point for point.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        Coverage, risk and threshold, each [N]; shares, 0 to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    conf, hit = check_top_label(confidence, correct)
    order, n = np.argsort(-conf, kind="stable"), np.arange(1, len(conf) + 1)
    risk = np.cumsum(tie_means(conf, 1 - hit)[order]) / n
    return RiskCoverageCurve(n / len(conf), risk, conf[order])


def selective_accuracy(confidence: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8) -> float:
    """Accuracy of the most confident docs: of the ceil(coverage N) first ones.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        coverage: Share of docs that is answered, above 0 and at most 1.

    Returns:
        A share, 0 to 1 (best); the accuracy itself at coverage 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: El-Yaniv & Wiener 2010.
    """
    answered = _n_answered(coverage, len(np.atleast_1d(np.asarray(confidence))))
    return float(1 - risk_coverage_curve(confidence, correct).risk[answered - 1])


def selective_accuracy_interval(
    confidence: ArrayLike, correct: ArrayLike, *, coverage: float = 0.8, level: float = 0.95
) -> Interval:
    """Interval of :func:`selective_accuracy` in the population's most confident share: Wilson's."""
    answered = _n_answered(coverage, len(np.atleast_1d(np.asarray(confidence))))
    rate = selective_accuracy(confidence, correct, coverage=coverage)
    square = float(ndtri((1 - check_level(level)) / 2)) ** 2
    middle = (rate + square / (2 * answered)) / (1 + square / answered)
    half = np.sqrt(square * (rate * (1 - rate) / answered + square / (4 * answered**2))) / (1 + square / answered)
    return float(max(0, min(rate, middle - half))), float(min(1, max(rate, middle + half)))


def _n_answered(coverage: float, n_docs: int) -> int:
    if check_probability("coverage", coverage) == 0:
        raise ValueError("coverage is 0: no doc is answered")
    return max(1, int(np.ceil(coverage * n_docs - 1e-9)))
