"""Does confidence hold in every group of docs as in all? Errors of groups, with intervals that hold all at once.

A model can be calibrated over all docs and overconfident in one ward, underconfident in another. Groups are those of
every field and of every pair of fields, whole and by how confident the model was (multicalibration). Of G groups and
B of their bins, each group's interval has the level 1 - (1 - level) / 2G and each bin's 1 - (1 - level) / 2B
(Bonferroni), so with probability ``level`` all of them hold, whatever groups share.

Source: Hebert-Johnson et al. 2018, arXiv:1711.08513; Detommaso et al. 2024, arXiv:2404.04689, for language models.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index
from lm_eval_calibration.metrics.fields import FEWEST_DOCS, Fields, Key, groups_of, named
from lm_eval_calibration.metrics.uncertainty.clusters import check_cluster, too_few_clusters
from lm_eval_calibration.metrics.uncertainty.intervals import check_level
from lm_eval_calibration.metrics.uncertainty.means import Values, mean_intervals
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_top_label
from lm_eval_calibration.metrics.verdicts import Tendency, side_of_0


class GroupError(NamedTuple):
    """Confidence less accuracy of the docs of a group.

    Attributes:
        group: pairs of field and value.
        bin: lower and upper end of the confidences of these docs; None for all docs of the group.
        n_docs: number of these docs.
        confidence: its mean.
        accuracy: share of right answers.
        gap: confidence less accuracy, -1 to 1; above 0 where the model is overconfident.
        low: lower end of the simultaneous interval.
        high: upper end.
    """

    group: Key
    bin: tuple[float, float] | None
    n_docs: int
    confidence: float
    accuracy: float
    gap: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """The group in words."""
        where = "" if self.bin is None else f", confidence {self.bin[0]:g} to {self.bin[1]:g}"
        return named(self.group) + where

    @property
    def tendency(self) -> Tendency:
        """Whether answers of the group are over- or underconfident: all such words together are false at most 5%."""
        side = side_of_0((self.low, self.high))
        return "overconfident" if side > 0 else "underconfident" if side < 0 else ""


class LargestError(NamedTuple):
    """Largest |confidence less accuracy| of any group, with its interval; nan without groups."""

    value: float
    low: float
    high: float


class GroupErrors(NamedTuple):
    """Errors of all groups.

    Attributes:
        groups: of whole groups, the largest |gap| first.
        bins: of the bins of groups, the largest |gap| first.
        largest: of the whole groups.
        largest_of_bins: of the bins.
        level: of the intervals, of all groups and bins at once.
        fields: whose groups these are.
        left_out: field to why it makes no groups.
    """

    groups: tuple[GroupError, ...]
    bins: tuple[GroupError, ...]
    largest: LargestError
    largest_of_bins: LargestError
    level: float
    fields: tuple[str, ...]
    left_out: Mapping[str, str]


def group_errors(
    confidence: ArrayLike,
    correct: ArrayLike,
    fields: Fields,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    cluster: ArrayLike | None = None,
    left_out: Mapping[str, str] | None = None,
) -> GroupErrors:
    """Return confidence less accuracy of every group of docs, with intervals that hold for all of them at once.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] 0 or 1.
        fields: name to field of the same docs; every field and pair of fields makes groups, of 20 docs at least.
        n_bins: equal-width bins of confidence that each group is divided by; those with 20 docs count.
        level: with which all intervals hold at once.
        cluster: [N] name of what each doc was drawn with; none where each was drawn by itself.
        left_out: field to why it makes no groups, to be remembered.

    Raises:
        ValueError: bad input, fields of another length.
    """
    conf, hit = check_top_label(confidence, correct)
    check_level(level)
    for name, field in fields.items():
        if len(field.codes) != len(conf):
            raise ValueError(f"{name} has {len(field.codes)} docs, but confidence has {len(conf)}")
    clusters = None if cluster is None else check_cluster(cluster, len(conf))
    wholes = groups_of(fields)
    bins, half = _bins(wholes, conf, n_bins), (1 - level) / 2
    groups = _errors({(key, None): rows for key, rows in wholes.items()}, conf, hit, clusters, half)
    in_bins = _errors(bins, conf, hit, clusters, half)
    found = _largest(groups), _largest(in_bins)
    return GroupErrors(groups, in_bins, *found, level, tuple(fields), dict(left_out or {}))


Cells = dict[tuple[Key, tuple[float, float] | None], IntArray]


def _bins(groups: Mapping[Key, IntArray], conf: FloatArray, n_bins: int) -> Cells:
    """The rows of each bin of each group that has 20 docs at least; a bin that is the whole group is none."""
    index = bin_index(conf, n_bins)
    found: Cells = {}
    for key, rows in groups.items():
        for b in np.flatnonzero(np.bincount(index[rows]) >= FEWEST_DOCS).tolist():
            inside = rows[index[rows] == b]
            if len(inside) < len(rows):
                found[key, (b / n_bins, (b + 1) / n_bins)] = inside
    return found


def _errors(
    cells: Cells, conf: FloatArray, hit: FloatArray, cluster: IntArray | None, alpha: float
) -> tuple[GroupError, ...]:
    """The errors of these cells, all of whose intervals hold but for ``alpha``; too few clusters are left out."""
    numbers = {
        cell: None if cluster is None else check_cluster(cluster[rows], len(rows)) for cell, rows in cells.items()
    }
    known = {cell: rows for cell, rows in cells.items() if not too_few_clusters(numbers[cell])}
    if not known:
        return ()
    alpha /= len(known)
    values = [Values(conf[rows] - hit[rows], 1 - hit[rows], 1.0, numbers[cell]) for cell, rows in known.items()]
    found = []
    for ((key, ends), rows), (low, high) in zip(known.items(), mean_intervals(values, 1 - alpha), strict=True):
        c, h = float(conf[rows].mean()), float(hit[rows].mean())
        reach = _reach(conf, c, len(rows), alpha)
        found.append(GroupError(key, ends, len(rows), c, h, c - h, max(-1.0, low - reach), min(1.0, high + reach)))
    return tuple(sorted(found, key=lambda one: -abs(one.gap)))


def _reach(conf: FloatArray, mean: float, n_docs: int, alpha: float) -> float:
    """What Student's t leaves out of the mean of few skewed confidences: Bernstein's term, with the range of all docs.

    Far in the tails, where the intervals of many groups end, a few docs less sure than the others count for much.
    """
    return float(np.abs(conf - mean).max() * np.log(2 / alpha) / (3 * n_docs))


def _largest(errors: tuple[GroupError, ...]) -> LargestError:
    """Ends: the largest |gap| that some group has at least, and that no group exceeds."""
    if not errors:
        return LargestError(np.nan, np.nan, np.nan)
    low = max(0.0, *(max(one.low, -one.high) for one in errors))
    return LargestError(abs(errors[0].gap), low, max(max(abs(one.low), abs(one.high)) for one in errors))
