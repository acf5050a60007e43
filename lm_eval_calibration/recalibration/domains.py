"""One map for each group (task, subject, site ...) against one map for all: which is better, and where?"""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.recalibration.before_after import Change, before_after
from lm_eval_calibration.recalibration.by_group import METHODS
from lm_eval_calibration.recalibration.cross_fitting import cross_fit
from lm_eval_calibration.recalibration.docs import Docs, Forecasts


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
    for_all = cross_fit(method, docs.in_one_group(), n_folds=n_folds, seed=seed).forecasts
    for_each = cross_fit(method, docs, n_folds=n_folds, seed=seed).forecasts
    names = ("nll" if METHODS[method].takes == "choices" else "brier_top_label", "ece")

    def compare(name: str, model: Forecasts, one: Forecasts, own: Forecasts) -> Domain:
        from_model = before_after(model, one, names=names, n_bins=n_bins, seed=seed)
        from_one = before_after(one, own, names=names, n_bins=n_bins, seed=seed)
        unchanged = {change.name: change.before for change in from_model if change.name in names}
        return Domain(name, len(model.labels), unchanged, {c.name: c for c in from_one if c.name in names})

    domains = [compare("all", docs.forecasts, for_all, for_each)]
    for name in np.unique(docs.groups):
        which = np.flatnonzero(docs.groups == name)
        parts = (forecasts.take(which) for forecasts in (docs.forecasts, for_all, for_each))
        domains.append(compare(str(name), *parts))
    return domains
