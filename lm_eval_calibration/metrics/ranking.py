"""Does confidence tell right answers from wrong ones? Only its order matters here, not its values.

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value. Tied docs count as the mean over their orders.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from lm_eval_calibration.metrics.binning import bin_sums, tie_means
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import intervals
from lm_eval_calibration.metrics.uncertainty.clusters import influence_stderr, n_apart, z_quantile
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.nulls import drawn_totals, forecasts_of_docs
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_scores, check_top_label, undefined

FEWEST_FOR_DELONG = 5
"""Docs of the rarer class from which DeLong's variance is used."""


def _one_class(hit: FloatArray) -> str | None:
    reason = f"auroc is undefined: every doc is {'correct' if hit[0] else 'wrong'}"
    return reason if hit.min() == hit.max() else None


def _midranks(values: NDArray[Any]) -> FloatArray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values))


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
    return float(_placements(conf, hit)[hit == 1].mean())


def _errors_by_confidence(conf: FloatArray, hit: FloatArray) -> FloatArray:
    """Errors of the docs, most confident first; tied docs have their mean error."""
    order = np.argsort(-conf, kind="stable")
    return tie_means(conf, 1 - hit)[order]


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


@metric("top_label", higher_is_better=False, order=16, by_order=True, has_null=False, estimate=_aurc_estimate)
def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over n = 1..N of the error rate of the n most confident docs.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns an error rate, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    errors = np.cumsum(_errors_by_confidence(*check_top_label(confidence, correct)))
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


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


@metric("top_label", higher_is_better=False, order=17, by_order=True, has_null=False, estimate=_augrc_estimate)
def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the generalized risk-coverage curve: (share of docs both answered and wrong) over coverage.

    Equal to (1 - auroc) a (1 - a) + (1 - a)^2 / 2, a the accuracy, where auroc is defined.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns mean probability of a silent error, 0 (best) to 1/2. Raises ValueError for bad input, naming the row and
    the value.
    Source: Traub et al. 2024, arXiv:2407.01032.
    """
    errors = _errors_by_confidence(*check_top_label(confidence, correct))
    half_way = np.cumsum(errors) - errors / 2  # trapezium between one doc and the next
    return float(half_way.sum() / len(errors) ** 2)


def _none_correct(hit: FloatArray) -> str | None:
    return None if hit.any() else "auprc is undefined: no doc is correct"


def _auprc_estimate(conf: FloatArray, hit: FloatArray, *, level: float, cluster: IntArray | None = None) -> Estimate:
    """E[h_i r_i / u_i] / E[h], r_i the share of docs that are correct and above doc i (ties half)."""
    if reason := _none_correct(hit):
        return intervals.undefined_estimate(len(conf), reason)
    value, above, right = auprc(conf, hit), _mean_above(conf, np.ones(len(conf))), _mean_above(conf, hit)
    influence = (
        hit * right / above
        + hit * _mean_below(conf, hit / above)
        - _mean_below(conf, hit * right / above**2)
        - value * hit
    ) / hit.mean()
    return intervals.area_estimate(value, influence, hit, level=level, largest=1, cluster=cluster)


@metric("top_label", higher_is_better=True, order=18, by_order=True, has_null=False, estimate=_auprc_estimate)
def auprc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the precision-recall curve: mean over correct docs of the accuracy down to their rank.

    The average precision of "confident" as a sign of "correct". Its level is the accuracy: compare it only
    between models of equal accuracy.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a probability, 0 to 1 (best); nan with UndefinedMetricWarning where no doc is correct. Raises ValueError
    for bad input, naming the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    if reason := _none_correct(hit):
        return undefined(reason)
    return _mean_precision(conf, hit)


def _mean_precision(conf: FloatArray, hit: FloatArray) -> float:
    """Mean over the orders of tied docs.

    Of a group of g tied docs, q of them correct, after n docs with r correct, the j-th is correct with
    probability q / g, and then r + 1 + (j - 1) (q - 1) / (g - 1) of the first n + j are, on average.
    """
    _, group, size = np.unique(-conf, return_inverse=True, return_counts=True)
    right = bin_sums(group, hit, len(size))
    before, right_before = np.cumsum(size) - size, np.cumsum(right) - right
    others = (right - 1) / np.maximum(size - 1, 1)
    n, g = np.arange(len(hit)), np.repeat(np.arange(len(size)), size)
    expected_right = right_before[g] + 1 + (n - before[g]) * others[g]
    return float(np.sum((right / size)[g] * expected_right / (n + 1)) / hit.sum())
