"""Proper scoring rules, and what they are made of: calibration and the power to tell docs apart.

``brier_score`` and ``nll`` judge all choices: ``probs`` is an [N, K] array or a list of N vectors whose
lengths may differ, ``labels`` [N] the integer position of the gold choice. The others judge the confidence:
[N] numbers in [0, 1], and ``correct`` [N], 0 or 1. ValueError names the first bad row and its value.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.resampling import bootstrap_estimates, bootstrap_stderr, mean_stderr, spread
from lm_eval_calibration.metrics.validation import (
    Choices,
    FloatArray,
    Probs,
    check_choices,
    check_positive_integer,
    check_top_label,
    undefined,
)


class CorpDecomposition(NamedTuple):
    """The three parts of the Brier score: miscalibration - discrimination + uncertainty.

    Attributes:
        miscalibration: What recalibration would gain, 0 (best) to 1.
        discrimination: What the recalibrated confidence gains over always saying the accuracy, at least 0.
        uncertainty: a (1 - a), the Brier score of always saying the accuracy a; no merit of the model.
    """

    miscalibration: float
    discrimination: float
    uncertainty: float


def brier_score(probs: Probs, labels: ArrayLike) -> float:
    """Brier score over all choices: mean_i sum_k (p_ik - 1[y_i = k])^2, the harness's own convention.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.

    Returns:
        Squared probability, 0 (best) to 2.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Brier 1950, in the original form.
    """
    return float(np.mean(_doc_brier(check_choices(probs, labels))))


def brier_score_stderr(probs: Probs, labels: ArrayLike) -> float:
    """Standard error of :func:`brier_score`: sd over docs (ddof=1) / sqrt(N); nan for one doc."""
    return mean_stderr(_doc_brier(check_choices(probs, labels)))


def nll(probs: Probs, labels: ArrayLike) -> float:
    """Negative log-likelihood of the gold choice: mean_i -log p_{i, y_i}.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.

    Returns:
        Nats, 0 (best) to infinity: one gold choice with probability 0 makes it infinite, nothing is clipped.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    return float(np.mean(_doc_nll(check_choices(probs, labels))))


def nll_stderr(probs: Probs, labels: ArrayLike) -> float:
    """Standard error of :func:`nll`: sd over docs (ddof=1) / sqrt(N); nan for one doc or an infinite one."""
    return mean_stderr(_doc_nll(check_choices(probs, labels)))


def brier_top_label(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Brier score of the confidence: mean_i (c_i - h_i)^2.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        Squared probability, 0 (best) to 1.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(np.mean((conf - hit) ** 2))


def brier_top_label_stderr(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Standard error of :func:`brier_top_label`: sd over docs (ddof=1) / sqrt(N); nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    return mean_stderr((conf - hit) ** 2)


def skill_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Brier skill: 1 - mean_i (c_i - h_i)^2 / (a (1 - a)), a the accuracy.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        At most 1 (best); 0 is always saying the accuracy, below 0 is worse than that. Nan with
        UndefinedMetricWarning where every doc is correct or none is.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Murphy 1973.
    """
    value = _skill_score(*check_top_label(confidence, correct))
    return undefined("skill_score is undefined: accuracy is 0 or 1") if np.isnan(value) else value


def skill_score_stderr(confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of :func:`skill_score`: bootstrap over docs; nan where accuracy is 0 or 1."""
    conf, hit = check_top_label(confidence, correct)
    if np.isnan(_skill_score(conf, hit)):
        return undefined("skill_score is undefined: accuracy is 0 or 1")
    return bootstrap_stderr(_skill_score, conf, hit, draws=draws, seed=seed)


def corp_decomposition(confidence: ArrayLike, correct: ArrayLike) -> CorpDecomposition:
    """CORP decomposition of :func:`brier_top_label` by isotonic regression x of correct on confidence.

    miscalibration = S(c) - S(x), discrimination = S(a) - S(x), uncertainty = S(a), where S is the mean
    squared distance from correct, and a the accuracy. Then
    brier_top_label = miscalibration - discrimination + uncertainty.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Returns:
        The three parts, squared probabilities, each at least 0.

    Raises:
        ValueError: Bad input; the message names the row and the value.

    Source: Dimitriadis, Gneiting & Jordan 2021, arXiv:2008.03033.
    """
    return CorpDecomposition(*_corp(*check_top_label(confidence, correct)))


def corp_decomposition_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> CorpDecomposition:
    """Standard errors of the parts of :func:`corp_decomposition`: bootstrap over docs; nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    check_positive_integer("draws", draws, at_least=2)
    estimates = bootstrap_estimates(_corp, conf, hit, draws=draws, seed=seed)
    return CorpDecomposition(*(spread(part, n_docs=len(conf)) for part in estimates.T))


def _doc_brier(choices: Choices) -> FloatArray:
    return bin_sums(choices.doc, (choices.probs - choices.hits) ** 2, len(choices.n_choices))


def _doc_nll(choices: Choices) -> FloatArray:
    gold = choices.probs[choices.hits == 1]
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(gold) + 0.0)  # + 0.0: a certain model has 0, not -0


def _skill_score(conf: FloatArray, hit: FloatArray) -> float:
    accuracy = hit.mean()
    if accuracy in (0, 1):
        return float("nan")
    return float(1 - np.mean((conf - hit) ** 2) / (accuracy * (1 - accuracy)))


def _corp(conf: FloatArray, hit: FloatArray) -> tuple[float, float, float]:
    from sklearn.isotonic import isotonic_regression

    _, group, size = np.unique(conf, return_inverse=True, return_counts=True)
    mean_hit = bin_sums(group, hit, len(size)) / size
    recalibrated = isotonic_regression(mean_hit, sample_weight=size)[group]
    of_model, of_recalibrated, of_accuracy = (
        float(np.mean((forecast - hit) ** 2)) for forecast in (conf, recalibrated, hit.mean())
    )
    return max(0.0, of_model - of_recalibrated), max(0.0, of_accuracy - of_recalibrated), of_accuracy
