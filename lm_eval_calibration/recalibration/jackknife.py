"""What fitting adds to the doubt about a cross-fitted change: the change again without each fold in turn.

An interval that takes the maps as given leaves out that other docs would have given other maps, and that each fold's
map was fitted on the docs that the other folds are tested on. Without fold k, its docs are neither fitted on nor tested
on: the spread of the changes of all K such samples is the delete-a-group jackknife's standard error, with K - 1 degrees
of freedom. It takes one fit for each pair of folds.

Source: Shao & Wu 1989 (delete-a-group jackknife); Bates, Hastie & Tibshirani 2021, arXiv:2104.00673 (nested
cross-validation, whose inner folds these are).
"""

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from lm_eval_calibration.metrics import Comparison, Metric
from lm_eval_calibration.metrics.uncertainty.differences import two_sided_p_value
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.metrics.verdicts import side_of_0
from lm_eval_calibration.recalibration.by_group import MapByGroup
from lm_eval_calibration.recalibration.cross_fitting import CrossFit, put_together
from lm_eval_calibration.recalibration.docs import Docs, Forecasts
from lm_eval_calibration.recalibration.recalibrator import RecalibrationWarning

LEVEL = 0.95

FEWEST_FOLDS = 3
"""Without one of two folds nothing is left to fit on."""


class Refit(NamedTuple):
    """Docs without one fold, [n] their ``rows``, recalibrated as if that fold did not exist."""

    rows: IntArray
    forecasts: Forecasts


def without_each_fold(method: str, docs: Docs, crossed: CrossFit) -> list[Refit]:
    """Cross-fit anew without each fold; nothing where there are fewer than three.

    Args:
        method: a name of :data:`~lm_eval_calibration.recalibration.METHODS`.
        docs: that were cross-fitted.
        crossed: what came of it, whose folds are kept.
    """
    folds = sorted(crossed.maps)
    if len(folds) < FEWEST_FOLDS:
        return []
    groups = np.unique(docs.groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecalibrationWarning)  # the maps themselves warned of the same
        maps = {
            pair: MapByGroup.fit(method, docs.take(np.flatnonzero(~np.isin(crossed.fold, pair))), groups)
            for pair in combinations(folds, 2)
        }
    refits = []
    for left_out in folds:
        rows = np.flatnonzero(crossed.fold != left_out)
        rest, fold_of_rest = docs.take(rows), crossed.fold[rows]
        tested = {k: np.flatnonzero(fold_of_rest == k) for k in folds if k != left_out}
        parts = [
            (tested[k], maps[min(k, left_out), max(k, left_out)].recalibrate(rest.take(tested[k]))) for k in tested
        ]
        refits.append(Refit(rows, put_together(method, rest, parts)))
    return refits


def widened(
    metric: Metric, found: Comparison, refits: Sequence[tuple[Forecasts, Forecasts]], n_bins: int
) -> Comparison:
    """A comparison whose interval holds that of the jackknife, too; without an interval where that can't be had.

    What ranks docs alone (``auroc``, ``aurc`` ...) has none: it compares docs of different folds, whose maps differ.

    Args:
        metric: that was compared.
        found: after less before, maps held fixed.
        refits: before and after without each fold.
        n_bins: bins of a binned metric.
    """
    changes = np.array([_change(metric, *pair, n_bins) for pair in refits])
    changes = changes[np.isfinite(changes)]
    if metric.by_order or len(changes) < FEWEST_FOLDS:
        nan = float("nan")
        return found._replace(difference=nan, low=nan, high=nan, p_value=nan, verdict="")
    half = _half_width(changes)
    low, high = min(found.low, found.b - found.a - half), max(found.high, found.b - found.a + half)
    p_value = two_sided_p_value(found.difference, low, high, LEVEL)
    return found._replace(low=low, high=high, p_value=p_value, verdict=found.verdict if side_of_0((low, high)) else "")


def _half_width(changes: FloatArray) -> float:
    """t_{K-1} sqrt((K - 1) / K sum_k (change_k - mean)^2)."""
    freedom = len(changes) - 1
    return float(-stdtrit(freedom, (1 - LEVEL) / 2) * np.sqrt(freedom * np.var(changes)))


def _change(metric: Metric, before: Forecasts, after: Forecasts, n_bins: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # undefined without a fold: left out
        return after.value(metric, n_bins) - before.value(metric, n_bins)
