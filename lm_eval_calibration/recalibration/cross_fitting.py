"""Every doc recalibrated by a map that never saw it: K folds of docs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_calibration.metrics.validation import IntArray
from lm_eval_calibration.recalibration.by_group import METHODS, MapByGroup
from lm_eval_calibration.recalibration.choices import assemble
from lm_eval_calibration.recalibration.docs import Docs, Forecasts
from lm_eval_calibration.recalibration.folds import fold_of


class CrossFit(NamedTuple):
    """Docs recalibrated out of fold.

    Attributes:
        forecasts: of all docs, in their order, each by the map of its fold.
        fold: [N] fold of each doc.
        maps: fold to the map that was fitted on the docs of the other folds.
    """

    forecasts: Forecasts
    fold: IntArray
    maps: dict[int, MapByGroup]


def cross_fit(method: str, docs: Docs, *, n_folds: int = 5, seed: int = 0) -> CrossFit:
    """Recalibrate each fold of docs with a map fitted on the docs of the other folds; a cluster is in one fold.

    A map is fitted for each group of the docs. Where the other folds hold fewer than 20 docs of a group, the group's
    docs in this fold are left as they are, with a RecalibrationWarning.

    Metrics of the order of the docs (``auroc``, ``aurc`` ...) then compare docs of different folds, whose maps differ
    a little: with few docs that alone can lower them. One map, tested on a test split, does not.

    Args:
        method: a name of :data:`~lm_eval_calibration.recalibration.METHODS`.
        docs: the docs.
        n_folds: folds, see :func:`fold_of`.
        seed: of the folds.
    """
    fold, groups = fold_of(docs.drawn_as, n_folds, seed), np.unique(docs.groups)
    maps = {int(k): MapByGroup.fit(method, docs.take(np.flatnonzero(fold != k)), groups) for k in np.unique(fold)}
    rows = {k: np.flatnonzero(fold == k) for k in maps}
    parts = [(rows[k], fold_map.recalibrate(docs.take(rows[k]))) for k, fold_map in maps.items()]
    return CrossFit(put_together(method, docs, parts), fold, maps)


def put_together(method: str, docs: Docs, parts: Sequence[tuple[IntArray, Forecasts]]) -> Forecasts:
    """Forecasts of all docs from those of the parts, each with the rows of its docs."""
    if METHODS[method].takes == "choices":
        return docs.with_probs(assemble([(rows, of_part.probs) for rows, of_part in parts], len(docs)))
    return docs.with_confidence(assemble([(rows, of_part.confidence) for rows, of_part in parts], len(docs)))
