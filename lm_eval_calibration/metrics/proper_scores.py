"""Proper scoring rules: calibration and the power to tell docs apart in one number.

``brier_score`` and ``nll`` score all choices: ``probs`` is an [N, K] array or a list of N vectors whose
lengths may differ, ``labels`` [N] the integer position of the gold choice. The others score the confidence:
[N] numbers in [0, 1], and ``correct`` [N], 0 or 1. ValueError names the first bad row and its value.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import intervals
from lm_eval_calibration.metrics.uncertainty.clusters import influence_stderr
from lm_eval_calibration.metrics.uncertainty.gap_vectors import calibrated_variance
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.nulls import drawn_totals, forecasts_of_choices, forecasts_of_docs
from lm_eval_calibration.metrics.uncertainty.resampling import sums_stderr
from lm_eval_calibration.metrics.validation import (
    Choices,
    FloatArray,
    IntArray,
    Probs,
    check_choices,
    check_top_label,
    undefined,
)


def _doc_brier(choices: Choices) -> FloatArray:
    return bin_sums(choices.doc, (choices.probs - choices.hits) ** 2, len(choices.n_choices))


def _choices_answers(choices: Choices, loss: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where answers are wrong, what that adds to a doc's loss, and how likely it was.

    loss: [n_forecasts] of the doc were this choice the gold one. A right answer would have added what a wrong one
    does on average over the other choices' probabilities.
    """
    n_docs, p = len(choices.n_choices), choices.probs
    largest = np.maximum.reduceat(p, np.cumsum(choices.n_choices) - choices.n_choices)
    candidates = np.flatnonzero(p == largest[choices.doc])
    top = candidates[np.unique(choices.doc[candidates], return_index=True)[1]]  # the first one of equals
    certain = np.maximum(1 - p[top], 1e-12)
    expected = (bin_sums(choices.doc, p * loss, n_docs) - p[top] * loss[top]) / certain
    seen = bin_sums(choices.doc, choices.hits * loss, n_docs)
    wrong = 1 - choices.hits[top]
    return wrong, np.where(wrong == 1, seen, expected) - loss[top], calibrated_variance(p[top], n_docs)


def _brier_answers(choices: Choices) -> tuple[FloatArray, FloatArray, FloatArray]:
    return _choices_answers(choices, -2 * choices.probs)  # and what all choices of a doc share


def _brier_null(choices: Choices, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    gold = drawn_totals(forecasts_of_choices(choices, cluster), choices.probs, seed)
    return np.asarray(1 + (np.sum(choices.probs**2) - 2 * gold) / len(choices.n_choices))


@metric(
    "choices",
    higher_is_better=False,
    core=("choices",),
    order=1,
    null=_brier_null,
    **intervals.mean_of(_doc_brier, _brier_answers, limits=(0, 2)),
)
def brier_score(probs: Probs, labels: ArrayLike) -> float:
    """Brier score over all choices: mean_i sum_k (p_ik - 1[y_i = k])^2, the harness's own convention.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice.
    Returns squared probability, 0 (best) to 2. Raises ValueError for bad input, naming the row and the value.
    Source: Brier 1950, in the original form.
    """
    return float(np.mean(_doc_brier(check_choices(probs, labels))))


def _doc_nll(choices: Choices) -> FloatArray:
    gold = choices.probs[choices.hits == 1]
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(gold) + 0.0)  # + 0.0: a certain model has 0, not -0


def _nll_answers(choices: Choices) -> tuple[FloatArray, FloatArray, FloatArray]:
    return _choices_answers(choices, -np.log(np.maximum(choices.probs, 1e-300)))


_NLL = intervals.mean_of(_doc_nll, _nll_answers, limits=(0, np.inf))


def _nll_estimate(choices: Choices, *, level: float, cluster: IntArray | None = None) -> Estimate:
    if not np.isfinite(_doc_nll(choices)).all():
        reason = "an interval of nll needs finite values: some gold choice has probability 0"
        return intervals.undefined_estimate(len(choices.n_choices), reason)
    estimate: Estimate = _NLL["estimate"](choices, level=level, cluster=cluster)
    return estimate


def _nll_null(choices: Choices, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    loss = -np.log(np.maximum(choices.probs, 1e-300))
    return drawn_totals(forecasts_of_choices(choices, cluster), loss, seed) / len(choices.n_choices)


@metric("choices", higher_is_better=False, order=8, stderr=_NLL["stderr"], estimate=_nll_estimate, null=_nll_null)
def nll(probs: Probs, labels: ArrayLike) -> float:
    """Negative log-likelihood of the gold choice: mean_i -log p_{i, y_i}.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice.
    Returns nats, 0 (best) to infinity: one gold choice with probability 0 makes it infinite, nothing is clipped.
    Raises ValueError for bad input, naming the row and the value.
    """
    return float(np.mean(_doc_nll(check_choices(probs, labels))))


def _squares(conf: FloatArray, hit: FloatArray) -> FloatArray:
    return np.asarray((conf - hit) ** 2)


def _squares_answers(conf: FloatArray, hit: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A wrong answer adds c^2 - (1 - c)^2."""
    return 1 - hit, 2 * conf - 1, calibrated_variance(conf, len(conf))


def _squares_null(conf: FloatArray, hit: FloatArray, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    totals = drawn_totals(forecasts_of_docs(conf, hit, cluster), 1 - 2 * conf, seed)
    return np.asarray((np.sum(conf**2) + totals) / len(conf))


@metric(
    "top_label",
    higher_is_better=False,
    core=("generation",),
    in_place_of="brier_score",
    order=7,
    null=_squares_null,
    **intervals.mean_of(_squares, _squares_answers, limits=(0, 1)),
)
def brier_top_label(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Brier score of the confidence: mean_i (c_i - h_i)^2.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns squared probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    """
    return float(np.mean(_squares(*check_top_label(confidence, correct))))


def _no_skill(hit: FloatArray) -> str | None:
    return "skill_score is undefined: accuracy is 0 or 1" if hit.mean() in (0, 1) else None


def _skill_of_totals(totals: FloatArray) -> FloatArray:
    """The score from totals of (c - h)^2, h and docs, [draws, 3]; nan where every drawn doc is correct or none is."""
    square, accuracy = totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2]
    ratio = np.full(len(totals), np.nan)
    np.divide(square, accuracy * (1 - accuracy), out=ratio, where=(accuracy > 0) & (accuracy < 1))
    return np.asarray(1 - ratio)


def _skill_stderr(
    conf: FloatArray, hit: FloatArray, *, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    if reason := _no_skill(hit):
        return undefined(reason)
    sums = np.column_stack([_squares(conf, hit), hit, np.ones(len(hit))])
    return sums_stderr(_skill_of_totals, sums, draws=draws, seed=seed, cluster=cluster)


def _skill_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """Delta method on the means of (c - h)^2 and h, for log(1 - skill), which has no limit, with a t quantile."""
    if reason := _no_skill(hit) or intervals.too_few_of_a_class(hit, cluster):
        return intervals.undefined_estimate(len(conf), reason)
    accuracy, square = hit.mean(), _squares(conf, hit)
    spread = accuracy * (1 - accuracy)
    value = 1 - square.mean() / spread
    influence = -(square - square.mean()) / spread + square.mean() * (1 - 2 * accuracy) * (hit - accuracy) / spread**2
    stderr = influence_stderr(influence, cluster)
    if value == 1 or stderr == 0:
        return intervals.undefined_estimate(
            len(conf), "no interval: docs differ in nothing, or the value is at its limit"
        )
    half = intervals.rare_class_quantile(hit, level, cluster) * stderr / (1 - value)
    low, high = 1 - (1 - value) * np.exp([half, -half])
    return Estimate(float(value), float(low), float(high), influence)


def _skill_null(conf: FloatArray, hit: FloatArray, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    weights = np.column_stack([1 - 2 * conf, np.ones(len(conf))])
    squares, accuracy = drawn_totals(forecasts_of_docs(conf, hit, cluster), weights, seed).T / len(conf)
    spread = accuracy * (1 - accuracy)
    ratio = np.full(len(spread), np.nan)
    np.divide(np.mean(conf**2) + squares, spread, out=ratio, where=spread > 1e-12)
    return np.asarray(1 - ratio)


@metric(
    "top_label",
    higher_is_better=True,
    core=("generation",),
    order=21,
    stderr=_skill_stderr,
    estimate=_skill_estimate,
    null=_skill_null,
)
def skill_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Brier skill: 1 - mean_i (c_i - h_i)^2 / (a (1 - a)), a the accuracy.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns at most 1 (best); 0 is always saying the accuracy, below 0 is worse than that. Nan with
    UndefinedMetricWarning where every doc is correct or none is. Raises ValueError for bad input, naming the row and
    the value.
    Source: Murphy 1973.
    """
    conf, hit = check_top_label(confidence, correct)
    if reason := _no_skill(hit):
        return undefined(reason)
    accuracy = hit.mean()
    return float(1 - np.mean((conf - hit) ** 2) / (accuracy * (1 - accuracy)))
