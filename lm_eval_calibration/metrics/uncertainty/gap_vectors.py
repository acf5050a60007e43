"""Calibration errors as a size of a vector of signed gaps, with what each doc adds to every gap.

Every binned error is a norm of signed gaps, one a cell (a bin, a range, a class x range). The gaps themselves
are smooth functions of means over docs, so their joint distribution is near to normal, with a covariance that
the docs give: Cov = influence.T @ influence / N^2. Only the norm has a kink, where a gap is 0.
"""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, range_sizes
from lm_eval_calibration.metrics.uncertainty.clusters import independent_sums
from lm_eval_calibration.metrics.uncertainty.shares import share_intervals
from lm_eval_calibration.metrics.validation import Choices, FloatArray, IntArray

PSEUDO_DOCS = 2
"""Calibrated docs by which the variance of each cell is made to err upwards: two docs that happen to be right
say nothing about the variance, and the interval must not take their silence for certainty."""


class GapVector(NamedTuple):
    """Signed gaps and their sampling noise.

    Attributes:
        gaps: [F] (outcome - forecast) in each cell, scaled so that the error is their norm.
        influence: [N, F] first-order effect of each doc on each gap, mean 0 over docs.
        calibrated_variance: [F] what one more doc would add to the variance of the gap, were it calibrated.
        counts: How many forecasts each cell holds and how many come true.
    """

    gaps: FloatArray
    influence: FloatArray
    calibrated_variance: FloatArray
    counts: "Counts"

    def covariance(self, cluster: IntArray | None = None) -> FloatArray:
        """Covariance of the gaps, [F, F]; of the sums of clusters where docs hang together."""
        rows = self.influence if cluster is None else independent_sums(self.influence, cluster)
        covariance = rows.T @ rows / len(self.influence) ** 2
        covariance[np.diag_indices(len(self.gaps))] += PSEUDO_DOCS * self.calibrated_variance
        return covariance


class Counts(NamedTuple):
    """Forecasts in each cell: gap_f = scale_f (n_true_f - mass_f), where mass_f is the sum of the forecasts.

    Attributes:
        n_true: [F] forecasts that come true; a forecast may lie in two cells with a share in each.
        n: [F] all forecasts.
        scale: [F] by which the gap sum becomes the gap.
    """

    n_true: FloatArray
    n: FloatArray
    scale: FloatArray

    def reach(self, gaps: FloatArray, level: float, effective: float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Least and greatest size of each gap that the binomial interval of the cell's share of true ones allows.

        ``effective``: by what factor docs count less because they hang together.
        """
        n = np.maximum(self.n, 1e-300) * effective
        size = self.scale * np.maximum(self.n, 1e-300)
        share = np.clip(self.n_true / np.maximum(self.n, 1e-300), 0, 1)
        low, high = share_intervals(share * n, n, level)
        observed = np.divide(gaps, size, out=np.zeros(len(gaps)), where=size > 0)
        below, above = observed - (share - low), observed + (high - share)
        nearest = np.maximum(np.maximum(below, -above), 0)
        farthest = np.maximum(np.abs(below), np.abs(above))
        live = self.n > 0
        return np.where(live, nearest * size, np.abs(gaps)), np.where(live, farthest * size, np.abs(gaps))


def equal_width_gaps(conf: FloatArray, hit: FloatArray, *, n_bins: int) -> GapVector:
    """Gaps of equal-width bins: (n_m / N) (acc_m - conf_m)."""
    return _binned(conf, hit, bin_index(conf, n_bins), n_bins)


def value_gaps(conf: FloatArray, hit: FloatArray) -> GapVector:
    """Gaps of the docs of each confidence: (n_v / N) (acc_v - v)."""
    values, index = np.unique(conf, return_inverse=True)
    return _binned(conf, hit, np.asarray(index, dtype=np.int64), len(values))


def root_gaps(conf: FloatArray, hit: FloatArray, index: IntArray, n_bins: int) -> GapVector:
    """Gaps whose squares add up: sqrt(n_m / N) (acc_m - conf_m) in the bins ``index``."""
    gaps, influence, variance, counts = _binned(conf, hit, index, n_bins)
    share = np.bincount(index, minlength=n_bins) / len(conf)
    size = np.where(share > 0, share, 1)
    membership = index[:, None] == np.arange(n_bins)
    influence = influence / np.sqrt(size) - gaps * (membership - share) / (2 * size**1.5)
    rooted = counts._replace(scale=counts.scale / np.sqrt(size))
    return GapVector(gaps / np.sqrt(size), influence, variance / size, rooted)


def top_label_range_gaps(conf: FloatArray, hit: FloatArray, *, n_bins: int) -> GapVector:
    """Gaps of equal-mass ranges, weighted: (n_r / N) (acc_r - conf_r)."""
    n_docs = len(conf)
    return _ranges(conf, hit, np.full(n_bins, 1 / n_docs))


def root_range_gaps(conf: FloatArray, hit: FloatArray, sizes: IntArray) -> GapVector:
    """Gaps of ranges of these sizes whose squares add up: sqrt(n_r / N) (acc_r - conf_r)."""
    return _ranges(conf, hit, 1 / np.sqrt(sizes * len(conf)), sizes)


def one_class_range_gaps(conf: FloatArray, hit: FloatArray, *, n_bins: int) -> GapVector:
    """Gaps of the R equal-mass ranges that hold a doc, unweighted: (acc_r - conf_r) / R."""
    return _ranges(conf, hit, range_scale(len(conf), n_bins))


def class_range_gaps(choices: Choices, *, n_bins: int) -> GapVector:
    """Gaps of the equal-mass ranges of every class: (acc(r, k) - conf(r, k)) / (K R), classes side by side."""
    n_docs, n_classes = len(choices.n_choices), int(choices.n_choices.max())
    vectors, influence = [], np.zeros((n_docs, n_classes * n_bins))
    for k in range(n_classes):
        member = choices.position == k
        probs, hits, docs = choices.probs[member], choices.hits[member], choices.doc[member]
        vector = _ranges(probs, hits, range_scale(len(docs), n_bins) / n_classes)
        influence[docs, k * n_bins : (k + 1) * n_bins] = vector.influence * (n_docs / len(docs))
        vectors.append(vector)
    gaps, _, variance, counts = zip(*vectors, strict=True)
    all_counts = Counts(*(np.concatenate(parts) for parts in zip(*counts, strict=True)))
    return GapVector(np.concatenate(gaps), influence, np.concatenate(variance), all_counts)


def class_bin_gaps(choices: Choices, *, n_bins: int) -> GapVector:
    """Gaps of the equal-width bins of every class: (n_mk / N_k) (acc(m, k) - conf(m, k)) / K, classes side by side."""
    n_docs, n_classes = len(choices.n_choices), int(choices.n_choices.max())
    cell = choices.position * n_bins + bin_index(choices.probs, n_bins)
    sums = doc_sums(choices, cell, n_classes * n_bins)
    present = np.repeat(np.arange(n_classes) < choices.n_choices[:, None], n_bins, axis=1)
    scale = 1 / (present.sum(axis=0) * n_classes)
    gaps = sums.sum(axis=0) * scale
    centred = sums - present * (sums.sum(axis=0) / present.sum(axis=0))
    variance = _mean_variance(cell, choices.probs, n_classes * n_bins) * scale**2
    return GapVector(gaps, centred * scale * n_docs, variance, _counts(cell, choices.hits, scale))


def choices_gaps(choices: Choices, *, n_bins: int) -> GapVector:
    """Gaps of equal-width bins of all choices: sum of (1[y_i = k] - p_ik) in each / N."""
    n_docs, cell = len(choices.n_choices), bin_index(choices.probs, n_bins)
    sums = doc_sums(choices, cell, n_bins)
    variance = _mean_variance(cell, choices.probs, n_bins) / n_docs**2
    counts = _counts(cell, choices.hits, np.full(n_bins, 1 / n_docs))
    return GapVector(sums.mean(axis=0), sums - sums.mean(axis=0), variance, counts)


FEWEST_TEXTS = 10
"""Texts of several positions, below which what they add up to has no interval."""


def too_few_texts(_: FloatArray, n_positions: IntArray) -> str | None:
    """Why there is no interval of sums over texts: their spread is known from the texts alone."""
    if len(n_positions) >= FEWEST_TEXTS or not np.any(n_positions > 1):
        return None
    return f"too few to tell: an interval needs {FEWEST_TEXTS} texts, and there are {len(n_positions)}"


def ratio_gaps(gap_sums: FloatArray, n_positions: IntArray) -> GapVector:
    """Gaps of docs with several positions: the ratio sum_i gap_im / sum_i n_i, docs kept whole.

    In a position with one forecast p in a bin, |gap| (1 - |gap|) is p (1 - p), hit or miss: that is the
    calibrated variance. Docs of several positions have no such identity; theirs is gap^2. Gap sums don't tell how many
    forecasts there were either; a cell's forecasts are taken to be one a position that touches it.
    """
    n_docs, gaps = len(gap_sums), gap_sums.sum(axis=0) / n_positions.sum()
    size = np.abs(gap_sums)
    one = (gap_sums != 0) * calibrated_variance(np.minimum(size, 1), n_docs)
    spread = np.where(n_positions[:, None] == 1, one, size**2)
    touched = np.maximum((gap_sums != 0).sum(axis=0), 1)
    influence = (gap_sums - n_positions[:, None] * gaps) / n_positions.mean()
    variance = spread.sum(axis=0) / touched / n_positions.mean() ** 2 / n_docs**2
    n_true, n = (gap_sums > 0).sum(axis=0), (gap_sums != 0).sum(axis=0)
    counts = Counts(n_true.astype(np.float64), n.astype(np.float64), np.full(gap_sums.shape[1], 1 / n_positions.sum()))
    return GapVector(gaps, influence, variance, counts)


def smoothed_gaps(conf: FloatArray, hit: FloatArray, bandwidth: float, n_points: int) -> GapVector:
    """Gaps smoothed by a Gaussian kernel that is reflected at 0 and 1, at points of [0, 1]."""
    points = (np.arange(n_points) + 0.5) / n_points
    kernel = np.zeros((len(conf), n_points))
    for mirrored in (conf, -conf, 2 - conf):
        kernel += np.exp(-0.5 * ((points - mirrored[:, None]) / bandwidth) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    sums = kernel * (hit - conf)[:, None]
    mass = kernel.sum(axis=0)
    variance = (kernel.T @ calibrated_variance(conf, len(conf))) / np.maximum(mass, 1e-300) / len(conf) ** 2 / n_points
    counts = Counts(kernel.T @ hit, mass, np.full(n_points, 1 / len(conf)))
    return GapVector(sums.mean(axis=0), sums - sums.mean(axis=0), variance, counts)


def range_membership(forecasts: FloatArray, n_bins: int) -> FloatArray:
    """Share of each forecast below each cut of the equal-mass ranges, [n, n_bins + 1]."""
    return _membership(forecasts, range_sizes(len(forecasts), n_bins))


def _membership(forecasts: FloatArray, sizes: IntArray) -> FloatArray:
    """Share of each forecast below each cut of ranges of these sizes, [n, number of ranges + 1].

    A group of equal forecasts that a cut divides lies on both sides with the same shares for all its docs,
    which is what giving ties their mean outcome comes to.
    """
    _, group, size = np.unique(forecasts, return_inverse=True, return_counts=True)
    before = np.cumsum(size) - size
    cuts = np.concatenate([[0], np.cumsum(sizes)])
    below = np.clip((cuts - before[:, None]) / size[:, None], 0, 1)
    return np.asarray(below[group])


def _binned(conf: FloatArray, hit: FloatArray, index: IntArray, n_bins: int) -> GapVector:
    n_docs = len(conf)
    sums = np.zeros((n_docs, n_bins))
    sums[np.arange(n_docs), index] = hit - conf
    gaps = sums.mean(axis=0)
    counts = _counts(index, hit, np.full(n_bins, 1 / n_docs))
    return GapVector(gaps, sums - gaps, _mean_variance(index, conf, n_bins) / n_docs**2, counts)


def _counts(cell: IntArray, hits: FloatArray, scale: FloatArray) -> Counts:
    n_cells = len(scale)
    return Counts(bin_sums(cell, hits, n_cells), np.bincount(cell, minlength=n_cells).astype(np.float64), scale)


def _ranges(forecasts: FloatArray, outcomes: FloatArray, scale: FloatArray, sizes: IntArray | None = None) -> GapVector:
    """Gap sums of equal-mass ranges, or of ``sizes``, times ``scale``: estimates of those at the true quantiles.

    A cut that lies too high by a mass d moves m d of gap from one range to the next, m the gap at the cut,
    taken as the mean of the two ranges' gaps: the influence of sample quantiles.
    """
    n_bins = len(scale)
    below = _membership(forecasts, range_sizes(len(forecasts), n_bins) if sizes is None else sizes)
    gap = (outcomes - forecasts)[:, None]
    member = np.diff(below, axis=1)
    totals, n_docs = (member * gap).sum(axis=0), member.sum(axis=0)
    mean_gap = totals / np.maximum(n_docs, 1)
    at_cut = np.concatenate([[0], (mean_gap[1:] + mean_gap[:-1]) / 2, [0]])
    influence = np.diff(below * (gap - at_cut), axis=1)
    influence = (influence - influence.mean(axis=0)) * scale * len(forecasts)
    spread = calibrated_variance(forecasts, max(1, len(forecasts) // n_bins))
    variance = spread @ member / np.maximum(n_docs, 1)
    counts = Counts(outcomes @ member, n_docs, scale)
    return GapVector(totals * scale, influence, variance * scale**2, counts)


def range_scale(n_forecasts: int, n_bins: int) -> FloatArray:
    """1 / (size of the range x number of ranges that hold a doc)."""
    sizes = range_sizes(n_forecasts, n_bins)
    return np.where(sizes > 0, 1 / (np.maximum(sizes, 1) * np.count_nonzero(sizes)), 0.0)


def doc_sums(choices: Choices, cell: IntArray, n_cells: int) -> FloatArray:
    """Sum of (outcome - forecast) of each doc in each cell, [N, n_cells]."""
    n_docs = len(choices.n_choices)
    flat = choices.doc * n_cells + cell
    return bin_sums(flat, choices.hits - choices.probs, n_docs * n_cells).reshape(n_docs, n_cells)


def _mean_variance(cell: IntArray, forecasts: FloatArray, n_cells: int) -> FloatArray:
    """Mean variance of one calibrated outcome in each cell."""
    counts = np.bincount(cell, minlength=n_cells)
    return bin_sums(cell, calibrated_variance(forecasts, counts[cell]), n_cells) / np.maximum(counts, 1)


def calibrated_variance(forecasts: FloatArray, n: IntArray | int) -> FloatArray:
    """P (1 - p) of each forecast, which no forecast is so certain as to bring below that of 1 / (n + 2)."""
    doubted = np.clip(forecasts, 1 / (n + 2), 1 - 1 / (n + 2))
    return np.asarray(doubted * (1 - doubted))
