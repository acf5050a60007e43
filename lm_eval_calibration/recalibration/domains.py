"""One map for each group (task, subject, site ...) against one map for all: which is better, and where?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.recalibration.before_after import Change, before_after
from lm_eval_calibration.recalibration.by_group import METHODS
from lm_eval_calibration.recalibration.cross_fitting import cross_fit
from lm_eval_calibration.recalibration.docs import Docs
from lm_eval_calibration.recalibration.jackknife import without_each_fold


class Domain(NamedTuple):
    """A group under one map for all and under a map of its own, both cross-fitted.

    Attributes:
        name: of the group; "all" for all docs.
        n_docs: number of its docs.
        unchanged: metric to its value without a map.
        changes: metric to its change from one map for all ("before") to one map for each group ("after").
    """

    name: str
    n_docs: int
    unchanged: dict[str, float]
    changes: dict[str, Change]


def compare_domains(method: str, docs: Docs, *, n_folds: int = 5, n_bins: int = 10, seed: int = 0) -> list[Domain]:
    """Judge both, group by group and over all docs, by ``nll`` (``brier_top_label`` of confidences) and ``ece``.

    Args:
        method: a name of :data:`~lm_eval_calibration.recalibration.METHODS`.
        docs: with their groups.
        n_folds: folds; equal for both maps, so that they are tested on equal docs.
        n_bins: bins of ``ece``.
        seed: of folds and of what intervals simulate.
    """
    together = docs.in_one_group()
    for_all, for_each = (cross_fit(method, one, n_folds=n_folds, seed=seed) for one in (together, docs))
    refits = list(
        zip(without_each_fold(method, together, for_all), without_each_fold(method, docs, for_each), strict=True)
    )
    names = ("nll" if METHODS[method].takes == "choices" else "brier_top_label", "ece")

    def compare(name: str, member: NDArray[np.bool_]) -> Domain:
        seen = (docs.forecasts, for_all.forecasts, for_each.forecasts)
        model, one, own = (forecasts.take(np.flatnonzero(member)) for forecasts in seen)
        pairs = [
            (refit.forecasts.take(inside), by_group.forecasts.take(inside))
            for refit, by_group in refits
            if len(inside := np.flatnonzero(member[refit.rows]))
        ]
        changes = before_after(one, own, names=names, n_bins=n_bins, seed=seed, refits=pairs)
        unchanged = {metric: model.value(CATALOG[metric], n_bins) for metric in names}
        return Domain(name, len(model.labels), unchanged, {c.name: c for c in changes if c.name in names})

    everything = compare("all", np.full(len(docs), fill_value=True))
    return [everything, *(compare(str(name), docs.groups == name) for name in np.unique(docs.groups))]
