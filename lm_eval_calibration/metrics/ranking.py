"""Does confidence tell right answers from wrong ones? Only its order matters here, not its values.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import intervals
from lm_eval_calibration.metrics.uncertainty.clusters import influence_stderr, n_apart, z_quantile
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.nulls import drawn_totals, forecasts_of_docs
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_scores, undefined

FEWEST_FOR_DELONG = 5
"""Docs of the rarer class from which DeLong's variance is used."""


def _one_class(hit: FloatArray) -> str | None:
    reason = f"auroc is undefined: every doc is {'correct' if hit[0] else 'wrong'}"
    return reason if hit.min() == hit.max() else None


def _midranks(values: NDArray[Any]) -> FloatArray:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[index])


def _placements(conf: FloatArray, hit: FloatArray) -> FloatArray:
    """Share of the docs of the other class that each correct doc beats, or that beat each wrong doc (ties half)."""
    rank, right = _midranks(conf), hit == 1
    placements = np.empty(len(conf))
    placements[right] = (rank[right] - _midranks(conf[right])) / np.count_nonzero(~right)
    placements[~right] = 1 - (rank[~right] - _midranks(conf[~right])) / np.count_nonzero(right)
    return placements


def _delong_variance(placements: FloatArray, hit: FloatArray) -> float:
    """var(V10) / m + var(V01) / n over the m correct and the n wrong docs, at least two of each."""
    v10, v01 = placements[hit == 1], placements[hit == 0]
    return float(np.var(v10, ddof=1) / len(v10) + np.var(v01, ddof=1) / len(v01))


def _auroc_stderr(conf: FloatArray, hit: FloatArray, *, cluster: IntArray | None = None) -> float:
    """DeLong's, with midranks; nan where auroc is undefined, 0 or 1, or one doc alone is correct or wrong.

    Source: DeLong et al. 1988; by midranks as in Sun & Xu 2014.
    """
    if reason := _one_class(hit):
        return undefined(reason)
    placements = _placements(conf, hit)
    if placements[hit == 1].mean() in (0, 1):
        return undefined("auroc_stderr is undefined: confidence separates correct from wrong docs completely")
    if min(hit.sum(), len(hit) - hit.sum()) < 2:
        return undefined("auroc_stderr is undefined: it needs two correct and two wrong docs")
    if cluster is not None:
        return _jackknife_stderr(conf, hit, cluster)
    return float(np.sqrt(_delong_variance(placements, hit)))


def _jackknife_stderr(conf: FloatArray, hit: FloatArray, cluster: IntArray) -> float:
    """From the areas without each cluster in turn; by what clusters add where one of them holds a whole class.

    Of few clusters the sums of what docs add are too small: a cluster that moves the area moves the share of pairs that
    it is in as well. Source: Bell & McCaffrey 2002 (CR3).
    """
    right = hit == 1
    n = np.bincount(cluster, minlength=int(cluster.max()) + 1)
    n_right = np.bincount(cluster[right], minlength=len(n))
    remaining = (n_right.sum() - n_right) * ((n - n_right).sum() - (n - n_right))
    placements = _placements(conf, hit)
    if not remaining.all():
        return influence_stderr(_placement_influence(placements, hit), cluster)
    wins = placements * np.where(right, len(hit) - n_right.sum(), n_right.sum())
    of_cluster = np.bincount(cluster, weights=wins) - _wins_within(conf, right, cluster)
    areas = (wins[right].sum() - of_cluster) / remaining
    return float(np.sqrt((len(n) - 1) * np.var(areas)))


def _wins_within(conf: FloatArray, right: NDArray[np.bool_], cluster: IntArray) -> FloatArray:
    """Pairs of docs of one cluster, [G], of which the right one has the higher confidence (ties half)."""
    key = cluster * (len(conf) + 1) + np.unique(conf, return_inverse=True)[1]
    beaten = _midranks(key)[right] - np.searchsorted(np.sort(cluster), cluster[right])
    among_right = _midranks(key[right]) - np.searchsorted(np.sort(cluster[right]), cluster[right])
    n_clusters = int(cluster.max()) + 1
    return np.bincount(cluster[right], weights=beaten - among_right, minlength=n_clusters).astype(np.float64)


def _placement_influence(placements: FloatArray, hit: FloatArray) -> FloatArray:
    """What each doc adds to the area."""
    value, n_right = placements[hit == 1].mean(), hit.sum()
    return np.asarray((placements - value) * len(hit) / np.where(hit == 1, n_right, len(hit) - n_right))


def _auroc_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """DeLong's standard error on the logit scale, with the t of the rarer class; Newcombe's interval of few docs.

    Few right or few wrong docs, complete separation, or one confidence for all leave DeLong's variance unknown. In
    Newcombe's interval it is Hanley and McNeil's at the hypothesised value; of clustered docs each cluster counts as
    one doc there.
    """
    if reason := _one_class(hit):
        return intervals.undefined_estimate(len(conf), reason)
    placements = _placements(conf, hit)
    n_right, n_wrong = (n_apart(hit == of_class, cluster) for of_class in (1, 0))
    value = float(placements[hit == 1].mean())
    influence = _placement_influence(placements, hit)
    if min(n_right, n_wrong) >= FEWEST_FOR_DELONG and 0 < value < 1:
        variance = _delong_variance(placements, hit)
        if cluster is not None:
            variance = max(variance, _jackknife_stderr(conf, hit, cluster) ** 2)
        if variance > 0:
            quantile = intervals.rare_class_quantile(hit, level, cluster)
            return Estimate(value, *intervals.logit_interval(value, float(np.sqrt(variance)), quantile), influence)
    return Estimate(value, *_newcombe(value, n_right, n_wrong, z_quantile(level)), influence)


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


def _auroc_null(conf: FloatArray, hit: FloatArray, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    """How well the confidence of a calibrated model would rank.

    A low p-value says that confidence tells right from wrong answers less well than its own values promise.
    """
    weights = np.column_stack([_midranks(conf), np.ones(len(conf))])
    rank_sum, right = drawn_totals(forecasts_of_docs(conf, hit, cluster), weights, seed).T
    pairs = right * (len(conf) - right)
    drawn = np.full(len(pairs), np.nan)
    np.divide(rank_sum - right * (right + 1) / 2, pairs, out=drawn, where=pairs > 0.5)
    return drawn


@metric(
    "top_label",
    higher_is_better=True,
    core=("choices", "generation"),
    order=5,
    by_order=True,
    stderr=_auroc_stderr,
    estimate=_auroc_estimate,
    null=_auroc_null,
)
def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the ROC curve: P(c of a correct doc > c of a wrong one) + 1/2 P(they are equal).

    confidence: [N] any finite numbers, of which ranks alone count. correct: [N] 0 or 1.
    Returns a probability, 0 to 1 (best); 0.5 tells nothing. Nan with UndefinedMetricWarning where every doc is correct
    or none is. Raises ValueError for bad input, naming the row and the value.
    """
    conf, hit = check_scores(confidence, correct)
    if reason := _one_class(hit):
        return undefined(reason)
    n_right, n_wrong = np.count_nonzero(hit), np.count_nonzero(hit == 0)
    won = _midranks(conf)[hit == 1].sum() - n_right * (n_right + 1) / 2
    return float(won / (n_right * n_wrong))
