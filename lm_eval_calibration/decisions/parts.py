"""Docs in three parts: some order candidate thresholds, some test them, on the others the decision is shown."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics.validation import IntArray
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.recalibration.folds import fold_of
from lm_eval_calibration.records.display import counted

N_FOLDS = 10
CALIBRATION_FOLDS = 6
"""Folds of ten whose docs calibrate, the first of which order the candidates; the other four show the decision."""


class Parts(NamedTuple):
    """Rows of docs: those that order candidates, those that test them, and the others."""

    ordering: IntArray
    testing: IntArray
    others: IntArray

    @property
    def calibration(self) -> IntArray:
        """Rows of the docs that were decided on."""
        return np.sort(np.concatenate([self.ordering, self.testing]))


def parts_of(docs: Docs, calibration: NDArray[np.bool_] | None = None, seed: int = 0) -> Parts:
    """Divide docs by the hash of each, or of its cluster, which is never divided.

    Args:
        docs: the docs.
        calibration: [N] True for the docs to decide on; 60% of them by their hashes where not given.
        seed: another seed divides otherwise.

    Raises:
        ValueError: a doc (or a cluster) is in both splits, or one of the splits is empty.
    """
    fold = fold_of(docs.drawn_as, N_FOLDS if calibration is None else CALIBRATION_FOLDS, seed)
    inside = fold < CALIBRATION_FOLDS if calibration is None else np.asarray(calibration, dtype=np.bool_)
    both = np.intersect1d(docs.drawn_as[inside], docs.drawn_as[~inside])
    if both.size:
        raise ValueError(
            f"calibration split and rest have {counted(both.size)} (or clusters) in common, {both[0]} the first: "
            "the decision could not be judged on docs that it was not made on"
        )
    for rows, name in ((inside, "calibration split"), (~inside, "rest of the docs")):
        if not rows.any():
            raise ValueError(f"the {name} is empty: {_what(docs)} to decide on some and judge on others")
    return Parts(np.flatnonzero(inside & (fold == 0)), np.flatnonzero(inside & (fold > 0)), np.flatnonzero(~inside))


def _what(docs: Docs) -> str:
    """What there are too few of: docs, or clusters, which are never divided."""
    n_docs = f"{counted(len(docs))} {'is' if len(docs) == 1 else 'are'}"
    if docs.cluster_ids is None:
        return f"{n_docs} too few"
    n_clusters = len(np.unique(docs.drawn_as))
    which = f"{counted(n_clusters, what='clusters')}, which {'is' if n_clusters == 1 else 'are'}"
    return f"the {n_docs} of {which} never divided: too few"


def cluster_numbers(docs: Docs) -> IntArray | None:
    """[N] 0..G - 1 cluster of each doc; None where docs were drawn one by one."""
    return None if docs.cluster_ids is None else np.unique(docs.drawn_as, return_inverse=True)[1]


def one_per_cluster(docs: Docs, rows: IntArray) -> IntArray:
    """Of these rows one of each cluster, the one whose hash comes first: docs that are exchangeable again."""
    if docs.cluster_ids is None:
        return rows
    order = rows[np.argsort(docs.doc_hashes[rows], kind="stable")]
    _, first = np.unique(docs.drawn_as[order], return_index=True)
    return np.sort(order[first])
