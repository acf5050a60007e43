"""Prediction sets of a run's docs: calibrated on some of them, shown on others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.decisions.candidates import Candidates, Known
from lm_eval_calibration.decisions.parts import Parts, cluster_numbers, one_per_cluster
from lm_eval_calibration.decisions.prediction_sets import cross_conformal_quantiles, quantile, uacc
from lm_eval_calibration.decisions.shown import Share, share_of
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.recalibration.folds import fold_of

FEW_DOCS = 200
"""With fewer docs to show sets on, all docs show them: each fold by the q of the docs of the other folds."""


class SetsShown(NamedTuple):
    """Prediction sets of docs that they were not calibrated on.

    Attributes:
        set_size: mean number of options in a set.
        coverage: share of the sets that hold the right option.
        single: share of the sets of one option.
        single_right: share of these whose option is right.
        empty: share of the sets that hold nothing: every option looks less likely than right options do.
        by_class: position of the right option to the coverage of its docs; empty of samples.
        by_group: group to the coverage of its docs; empty where there is one.
        is_cross_conformal: whether each fold was shown by the docs of the others.
        without_right: share of docs none of whose candidates is right, so that no set can hold the right one.
        unlimited: share of docs where nothing is ruled out: too few calibration docs, or too many without a right one.
        uacc: accuracy / set_size * sqrt(number of options); nan where docs differ in that, and of samples.
    """

    set_size: float
    coverage: Share
    single: Share
    single_right: Share
    empty: Share
    by_class: Mapping[int, Share]
    by_group: Mapping[str, Share]
    is_cross_conformal: bool
    without_right: Share
    unlimited: float
    uacc: float


class SetsOfDocs(NamedTuple):
    """q of each group (inf where its calibration docs are too few: nothing is ruled out), and how sets do."""

    q: Mapping[str, float]
    n_calibration: int
    shown: SetsShown


def decide_sets(docs: Docs, known: Known, parts: Parts, *, alpha: float) -> dict[str, SetsOfDocs]:
    """Calibrate sets by every score; nothing where docs have no candidates."""
    return {name: _sets(candidates, docs, parts, alpha) for name, candidates in known.items()}


def _sets(candidates: Candidates, docs: Docs, parts: Parts, alpha: float) -> SetsOfDocs:
    scores = candidates.of_right
    calibration = one_per_cluster(docs, parts.calibration)
    rows_of = {group: calibration[docs.groups[calibration] == group] for group in np.unique(docs.groups).tolist()}
    q = {group: quantile(scores[of_group], alpha) for group, of_group in rows_of.items()}
    is_crossed = len(parts.others) < FEW_DOCS
    rows = np.arange(len(docs)) if is_crossed else parts.others
    limits = _crossed(scores, docs, alpha) if is_crossed else np.array([q[group] for group in docs.groups[rows]])
    return SetsOfDocs(q, len(calibration), show_sets(candidates.take(rows), limits, docs.take(rows), is_crossed))


def _crossed(scores: FloatArray, docs: Docs, alpha: float) -> FloatArray:
    """[N] q of each doc from the docs of the other folds of its group."""
    fold, found = fold_of(docs.drawn_as), np.empty(len(docs))
    kept = np.zeros(len(docs), dtype=np.bool_)
    kept[one_per_cluster(docs, np.arange(len(docs)))] = True
    for group in np.unique(docs.groups):
        rows = np.flatnonzero(docs.groups == group)
        found[rows] = cross_conformal_quantiles(scores[rows], fold[rows], kept[rows], alpha)
    return found


def _sizes_and_hits(members: Any, right: IntArray) -> tuple[FloatArray, FloatArray]:
    """[N] candidates in each set, and 1 where the right one is among them."""
    if isinstance(members, np.ndarray):
        holds = members[np.arange(len(right)), np.maximum(right, 0)] & (right >= 0)
        return members.sum(axis=1, dtype=np.float64), holds.astype(np.float64)
    rows = [(row.sum(), k >= 0 and row[k]) for row, k in zip(members, right, strict=True)]
    return tuple(np.array(rows, dtype=np.float64).T)


def show_sets(candidates: Candidates, limits: FloatArray, docs: Docs, is_crossed: bool = False) -> SetsShown:
    """Judge sets, {k : score <= limit of the doc}, on docs that they were not calibrated on."""
    cluster, right = cluster_numbers(docs), candidates.right
    sizes, holds = _sizes_and_hits(candidates.sets(limits), right)

    def share(event: FloatArray, among: IntArray | None = None) -> Share:
        which = np.arange(len(docs)) if among is None else among
        return share_of(event[which], None if cluster is None else np.unique(cluster[which], return_inverse=True)[1])

    single, names = np.flatnonzero(sizes == 1), np.unique(docs.groups).tolist()
    classes = [] if candidates.are_samples else np.unique(right[right >= 0]).tolist()
    return SetsShown(
        float(sizes.mean()),
        share(holds),
        share((sizes == 1).astype(np.float64)),
        share(holds, single),
        share((sizes == 0).astype(np.float64)),
        {k: share(holds, np.flatnonzero(right == k)) for k in classes},
        {name: share(holds, np.flatnonzero(docs.groups == name)) for name in names} if len(names) > 1 else {},
        is_crossed,
        share((right < 0).astype(np.float64)),
        float(np.mean(np.isinf(limits))),
        _uacc(candidates, docs, float(sizes.mean())),
    )


def _uacc(candidates: Candidates, docs: Docs, set_size: float) -> float:
    n_options = {len(scores) for scores in candidates.scores}
    if candidates.are_samples or len(n_options) > 1:
        return float("nan")
    return uacc(float(docs.forecasts.correct.mean()), set_size, n_options.pop())
