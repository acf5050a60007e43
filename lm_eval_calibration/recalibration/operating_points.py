"""Answer or abstain: the confidence from which answers are wrong no more often than wanted."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.uncertainty.shares import exact_upper_bound, share_interval
from lm_eval_calibration.metrics.validation import FloatArray, check_probability, check_top_label
from lm_eval_calibration.recalibration.cross_fitting import CrossFit
from lm_eval_calibration.recalibration.docs import Docs
from lm_eval_calibration.recalibration.recalibrator import warn

LEVEL = 0.95
"""Of the intervals and of the bound."""


class OperatingPoint(NamedTuple):
    """A threshold tested on docs that it was not chosen on.

    Attributes:
        wanted: error rate that was wanted.
        threshold: confidence from which it answers (the median doc's where each fold has its own); inf for never.
        n_docs: number of test docs.
        n_answered: those it answered.
        coverage: share of the docs it answered, with 95% interval.
        error_rate: share of the answers that are wrong, with 95% interval; nan where there is none.
        error_bound: what that share exceeds in no more than 5% of the samples, exactly (Clopper and Pearson); nan
            where there is none.
    """

    wanted: float
    threshold: float
    n_docs: int
    n_answered: int
    coverage: tuple[float, float, float]
    error_rate: tuple[float, float, float]
    error_bound: float


def choose_threshold(confidence: ArrayLike, correct: ArrayLike, *, wanted: float) -> float:
    """Return the lowest confidence from which at most a share ``wanted`` of the answers is wrong.

    Args:
        confidence: [N] of the docs to choose on, in [0, 1].
        correct: [N] 0 or 1.
        wanted: error rate, 0 to 1.

    Returns:
        A confidence; inf (answer nothing), with a RecalibrationWarning, where no threshold does.

    Raises:
        ValueError: bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    threshold = _lowest_threshold(conf, hit, check_probability("wanted", wanted))
    if math.isinf(threshold):
        warn(f"no confidence gives an error rate of {wanted:g} or less: nothing is answered")
    return threshold


def _lowest_threshold(conf: FloatArray, hit: Any, wanted: float) -> float:
    """The lowest confidence from which answers are wrong no more often; inf where there is none."""
    values, n_answered, n_wrong = by_threshold(conf, 1.0 - hit)
    return float(min(values[n_wrong <= wanted * n_answered + 1e-9], default=math.inf))


def by_threshold(confidence: FloatArray, wrong: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the confidences that occur, falling, and of each as a threshold the answers and the wrong ones."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    return ranked[last], np.asarray(last + 1, dtype=np.float64), np.cumsum(wrong[order])[last]


def evaluate_threshold(
    confidence: ArrayLike, correct: ArrayLike, threshold: ArrayLike, *, wanted: float
) -> OperatingPoint:
    """Judge a threshold on other docs than it was chosen on.

    Args:
        confidence: [N] of the docs to judge on, in [0, 1].
        correct: [N] 0 or 1.
        threshold: one number, or [N] one for each doc (cross-fitted).
        wanted: error rate that was wanted.

    Returns:
        Coverage and error rate with the confidence intervals that all shares have, and the exact bound of the error
        rate.
    """
    conf, hit = check_top_label(confidence, correct)
    thresholds = np.broadcast_to(np.asarray(threshold, dtype=np.float64), conf.shape)
    answered = conf >= thresholds
    n, n_answered, n_wrong = len(conf), int(answered.sum()), int((1 - hit[answered]).sum())
    return OperatingPoint(
        check_probability("wanted", wanted),
        float(np.median(thresholds)),
        n,
        n_answered,
        _share(n_answered, n),
        _share(n_wrong, n_answered),
        exact_upper_bound(n_wrong, n_answered, LEVEL),
    )


def cross_fit_operating_point(docs: Docs, fitted: CrossFit, *, wanted: float) -> OperatingPoint:
    """Choose a threshold on the docs of the other folds, as their map sees them, and judge it on each fold."""
    thresholds = {}
    for k, fold_map in fitted.maps.items():
        others = docs.take(np.flatnonzero(fitted.fold != k))
        chosen = math.inf
        if len(others):
            seen = fold_map.forecasts(others)
            chosen = _lowest_threshold(seen.confidence, seen.correct, wanted)
        else:
            warn("one fold holds all docs: there is nothing to choose a threshold on, so nothing is answered")
        thresholds[k] = chosen
    if none := sum(map(math.isinf, thresholds.values())):
        warn(
            f"for {none} of {len(thresholds)} folds no confidence gives an error rate of {wanted:g} or less on the "
            "others: nothing of these folds is answered"
        )
    after, of_doc = fitted.forecasts, [thresholds[k] for k in fitted.fold.tolist()]
    return evaluate_threshold(after.confidence, after.correct, of_doc, wanted=wanted)


def _share(count: int, total: int) -> tuple[float, float, float]:
    """A share of docs and its interval; nan where there are no docs."""
    if total == 0:
        return math.nan, math.nan, math.nan
    return count / total, *share_interval(count, total, LEVEL)
