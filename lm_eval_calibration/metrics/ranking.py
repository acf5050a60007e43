"""Does confidence tell right answers from wrong ones? Only its order matters here, not its values.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums, tie_means
from lm_eval_calibration.metrics.resampling import bootstrap_stderr
from lm_eval_calibration.metrics.validation import FloatArray, check_top_label, undefined


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the ROC curve: P(c of a correct doc > c of a wrong one) + 1/2 P(they are equal).

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        A probability, 0 to 1 (best); 0.5 tells nothing. Nan with UndefinedMetricWarning where every doc is
        correct or none is.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    if hit.min() == hit.max():
        return undefined(_one_class(hit))
    return _auroc(conf, hit)


def auroc_stderr(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Standard error of :func:`auroc` by DeLong, with midranks: sqrt(var(V10) / m + var(V01) / n).

    V10_i is the share of the n wrong docs that correct doc i beats (ties half), V01_j the share of the m
    correct docs that beat wrong doc j; variances with ddof=1.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        In the unit of auroc; nan with UndefinedMetricWarning where auroc is undefined, 0 or 1, or where only
        one doc is correct or only one is wrong.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: DeLong et al. 1988; by midranks as in Sun & Xu 2014.
    """
    conf, hit = check_top_label(confidence, correct)
    if hit.min() == hit.max():
        return undefined(_one_class(hit))
    if _auroc(conf, hit) in (0, 1):
        return undefined("auroc_stderr is undefined: confidence separates correct from wrong docs completely")
    right, wrong = conf[hit == 1], conf[hit == 0]
    if min(len(right), len(wrong)) < 2:
        return undefined("auroc_stderr is undefined: it needs two correct and two wrong docs")
    rank = midranks(conf)
    v10 = (rank[hit == 1] - midranks(right)) / len(wrong)
    v01 = 1 - (rank[hit == 0] - midranks(wrong)) / len(right)
    return float(np.sqrt(np.var(v10, ddof=1) / len(right) + np.var(v01, ddof=1) / len(wrong)))


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over n = 1..N of the error rate of the n most confident docs.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        An error rate, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    return _aurc(*check_top_label(confidence, correct))


def aurc_stderr(confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`aurc`: bootstrap over docs; nan for one doc."""
    return bootstrap_stderr(_aurc, *check_top_label(confidence, correct), draws=draws, seed=seed)


def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the generalized risk-coverage curve: (share of docs both answered and wrong) over coverage.

    Equal to (1 - auroc) a (1 - a) + (1 - a)^2 / 2, a the accuracy, where auroc is defined.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        Mean probability of a silent error, 0 (best) to 1/2.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Traub et al. 2024, arXiv:2407.01032.
    """
    return _augrc(*check_top_label(confidence, correct))


def augrc_stderr(confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`augrc`: bootstrap over docs; nan for one doc."""
    return bootstrap_stderr(_augrc, *check_top_label(confidence, correct), draws=draws, seed=seed)


def auprc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the precision-recall curve: mean over correct docs of the accuracy down to their rank.

    The average precision of "confident" as a sign of "correct". Its level is the accuracy: compare it only
    between models of equal accuracy.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        A probability, 0 to 1 (best); nan with UndefinedMetricWarning where no doc is correct.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    value = _auprc(*check_top_label(confidence, correct))
    return undefined("auprc is undefined: no doc is correct") if np.isnan(value) else value


def auprc_stderr(confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`auprc`: bootstrap over docs; nan for one doc or where none is correct."""
    conf, hit = check_top_label(confidence, correct)
    if not hit.any():
        return undefined("auprc is undefined: no doc is correct")
    return bootstrap_stderr(_auprc, conf, hit, draws=draws, seed=seed)


def midranks(values: FloatArray) -> FloatArray:
    """Ranks 1..N in ascending order; equal values share the mean of their ranks."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    middle: FloatArray = np.cumsum(size) - (size - 1) / 2
    return middle[group]


def _auroc(conf: FloatArray, hit: FloatArray) -> float:
    n_right = hit.sum()
    n_wrong = len(hit) - n_right
    rank_sum = midranks(conf)[hit == 1].sum()
    return float((rank_sum - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def _errors_by_confidence(conf: FloatArray, hit: FloatArray) -> FloatArray:
    """Errors of the docs, most confident first; tied docs have their mean error."""
    order = np.argsort(-conf, kind="stable")
    return tie_means(conf, 1 - hit)[order]


def _aurc(conf: FloatArray, hit: FloatArray) -> float:
    errors = np.cumsum(_errors_by_confidence(conf, hit))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def _augrc(conf: FloatArray, hit: FloatArray) -> float:
    errors = _errors_by_confidence(conf, hit)
    half_way = np.cumsum(errors) - errors / 2  # trapezium between one doc and the next
    return float(half_way.sum() / len(errors) ** 2)


def _auprc(conf: FloatArray, hit: FloatArray) -> float:
    """Mean over the orders of tied docs.

    Of a group of g tied docs, q of them correct, after n docs with r correct, the j-th is correct with
    probability q / g, and then r + 1 + (j - 1) (q - 1) / (g - 1) of the first n + j are, on average.
    """
    if not hit.any():
        return float("nan")
    _, group, size = np.unique(-conf, return_inverse=True, return_counts=True)
    right = bin_sums(group, hit, len(size))
    before, right_before = np.cumsum(size) - size, np.cumsum(right) - right
    others = (right - 1) / np.maximum(size - 1, 1)
    n, g = np.arange(len(hit)), np.repeat(np.arange(len(size)), size)
    expected_right = right_before[g] + 1 + (n - before[g]) * others[g]
    return float(np.sum((right / size)[g] * expected_right / (n + 1)) / hit.sum())


def _one_class(hit: FloatArray) -> str:
    return f"auroc is undefined: every doc is {'correct' if hit[0] else 'wrong'}"
