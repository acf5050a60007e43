"""Equal-mass ranges of sorted forecasts on every resample, without sorting again.

Above EXACT_DOCS docs the totals of fine cells are drawn instead of docs, unless a class is too rare or there are too
many ranges for that: then every doc is drawn, which takes longer.
"""

from collections.abc import Callable
from itertools import combinations_with_replacement, pairwise
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics.uncertainty import resampling
from lm_eval_calibration.metrics.uncertainty.resampling import resampling_weights, spread
from lm_eval_calibration.metrics.validation import FloatArray, IntArray

CELLS_PER_RANGE = 10
"""Cells into which each equal-mass range is cut above EXACT_DOCS; fewer where there are many ranges.

Standard errors are within 1% of those of every doc drawn; 500 draws leave 3%. The work grows with their square.
"""

MIN_CELLS_PER_RANGE = 5
MAX_CELLS = 2_000
"""Cells of all classes together: their joint covariance has four times its square entries."""

MIN_DOCS_PER_CELL = 25
"""Mean number of docs of a cell, in the rarest class, below which its total is not near enough to normal."""


class SortedForecasts(NamedTuple):
    """The forecasts of one class in ascending order.

    Attributes:
        docs: [n] the doc of each forecast.
        gaps: [n] outcome - forecast.
        ends: [n_ties] index of the last forecast of each group of equal ones.
    """

    docs: IntArray
    gaps: FloatArray
    ends: IntArray


def sort_forecasts(docs: IntArray, forecasts: FloatArray, outcomes: FloatArray) -> SortedForecasts:
    """Sort the forecasts of one class; ``docs`` says which doc each belongs to."""
    order = np.argsort(forecasts)
    ranked = forecasts[order]
    ends = np.append(np.flatnonzero(ranked[1:] > ranked[:-1]), len(ranked) - 1)
    return SortedForecasts(docs[order], (outcomes - forecasts)[order], ends)


def ranges_stderr(
    formula: Callable[[FloatArray, IntArray], FloatArray],
    classes: list[SortedForecasts],
    n_docs: int,
    *,
    n_bins: int,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> float:
    """Bootstrap standard error of a formula of gap sums and sizes [draws, K, n_bins] of equal-mass ranges."""
    gaps, sizes = resampled_ranges(classes, n_docs, n_bins=n_bins, draws=draws, seed=seed, cluster=cluster)
    return spread(formula(gaps, sizes), n_docs=n_docs)


def resampled_ranges(
    classes: list[SortedForecasts],
    n_docs: int,
    *,
    n_bins: int,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> tuple[FloatArray, IntArray]:
    """Gap sums and sizes [draws, K, n_bins] of the equal-mass ranges of K classes on every resample.

    Equal to :func:`~lm_eval_calibration.metrics.binning.equal_mass_gaps` of the resampled docs, without
    sorting again. Above EXACT_DOCS docs the totals of fine cells are drawn instead of docs, unless a class is
    too rare or there are too many ranges for that: then every doc is drawn, which takes longer.
    """
    per_range = min(CELLS_PER_RANGE, MAX_CELLS // (n_bins * len(classes)))
    rarest = min(len(forecasts.docs) for forecasts in classes)
    enough = per_range >= MIN_CELLS_PER_RANGE and rarest >= MIN_DOCS_PER_CELL * per_range * n_bins
    if n_docs > resampling.EXACT_DOCS and enough and cluster is None:
        n_cells = per_range * n_bins
        return normal_ranges(classes, n_docs, n_bins=n_bins, n_cells=n_cells, draws=draws, seed=seed)
    return exact_ranges(classes, n_docs, n_bins=n_bins, draws=draws, seed=seed, cluster=cluster)


def exact_ranges(
    classes: list[SortedForecasts],
    n_docs: int,
    *,
    n_bins: int,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> tuple[FloatArray, IntArray]:
    """The ranges of every resample, from the resampling weights of the sorted docs."""
    gaps, sizes = [], []
    drawn_together = np.arange(n_docs) if cluster is None else cluster
    for weights in resampling_weights(int(drawn_together.max()) + 1, draws, seed):
        for docs, doc_gaps, ends in classes:
            weight = weights.take(drawn_together[docs], axis=1)  # in rows, as weights[:, docs] is not
            class_gaps, class_sizes = _cut_ranges(weight, weight * doc_gaps, ends, n_bins)
            gaps.append(class_gaps)
            sizes.append(class_sizes)
    return _by_class(gaps, len(classes)), _by_class(sizes, len(classes))


def normal_ranges(
    classes: list[SortedForecasts], n_docs: int, *, n_bins: int, n_cells: int, draws: int, seed: int
) -> tuple[FloatArray, IntArray]:
    """The ranges of every resample, from fine cells of each class' sorted docs.

    The (number drawn, gap) totals of all cells of all classes are drawn jointly from the normal distribution
    with the bootstrap's mean and covariance; a range that ends within a cell takes its share of the cell.
    """
    total, covariance, starts = _cell_moments(classes, n_docs, n_cells)
    covariance[np.diag_indices(len(total))] += 1e-9 * covariance.max()  # it is singular: counts add up to N
    root = np.linalg.cholesky(covariance)
    totals = total + np.random.default_rng(seed).standard_normal((draws, len(total))) @ root.T
    gaps, sizes = [], []
    for start, end in pairwise(starts):
        drawn, gap = np.split(totals[:, start:end], 2, axis=1)
        taken = np.maximum.accumulate(np.cumsum(drawn, axis=1), axis=1)
        drawn = np.diff(taken, axis=1, prepend=0)
        class_gaps, class_sizes = _cut_ranges(drawn, gap, np.arange(gap.shape[1]), n_bins)
        gaps.append(class_gaps)
        sizes.append(class_sizes)
    return _by_class(gaps, len(classes)), _by_class(sizes, len(classes))


def _cell_moments(
    classes: list[SortedForecasts], n_docs: int, n_cells: int
) -> tuple[FloatArray, FloatArray, list[int]]:
    """Totals over docs of the cells' counts and gaps, and the covariance of their totals over a resample.

    Returns totals [F] (a class' counts, then its gaps, class after class), covariance [F, F], and where in them each
    class starts, with F at the end.
    """
    by_doc, starts = [], [0]
    for forecasts in classes:
        cell, gap = np.full(n_docs, -1, dtype=np.int32), np.zeros(n_docs)
        cell[forecasts.docs], gap[forecasts.docs] = _cells(forecasts, n_cells), forecasts.gaps
        by_doc.append((cell, gap))
        starts.append(starts[-1] + 2 * (int(cell.max()) + 1))
    products = np.zeros((starts[-1], starts[-1]))
    for (i, (cell_i, gap_i)), (j, (cell_j, gap_j)) in combinations_with_replacement(enumerate(by_doc), 2):
        n_i, n_j = (starts[i + 1] - starts[i]) // 2, (starts[j + 1] - starts[j]) // 2
        docs = np.flatnonzero((cell_i >= 0) & (cell_j >= 0))
        joint = cell_i[docs].astype(np.int64) * n_j + cell_j[docs]
        one, g_i, g_j = None, gap_i[docs], gap_j[docs]
        parts = [
            [np.bincount(joint, weights, minlength=n_i * n_j).reshape(n_i, n_j) for weights in row]
            for row in ((one, g_j), (g_i, g_i * g_j))
        ]
        block = np.block(parts)
        products[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] = block
        products[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = block.T
    totals = np.concatenate([np.append(np.bincount(c[c >= 0]), np.bincount(c[c >= 0], g[c >= 0])) for c, g in by_doc])
    return totals, products - np.outer(totals, totals) / n_docs, starts


def _cells(forecasts: SortedForecasts, n_cells: int) -> IntArray:
    """Cell of each sorted forecast: about n_cells of equal mass, never cutting a group of equal forecasts."""
    length = np.diff(forecasts.ends, prepend=-1)
    middle = forecasts.ends - (length - 1) / 2
    cell = np.floor(middle * n_cells / len(forecasts.docs))  # some may be empty
    return np.repeat(np.cumsum(np.diff(cell, prepend=cell[0]) > 0), length)


def _cut_ranges(drawn: NDArray[Any], gaps: FloatArray, ends: IntArray, n_bins: int) -> tuple[FloatArray, IntArray]:
    """Cut resampled, sorted forecasts at the boundaries of ``np.array_split``.

    drawn: [draws, n] how often each forecast was drawn. gaps: [draws, n] what the copies of each one add to the gap.
    ends: [n_ties] index of the last forecast of each group of equal ones. n_bins: number of ranges.
    Returns gap sums and sizes of the ranges, [draws, n_bins] each. The copies in a group have one mean gap, so the
    cumulative gap is linear within a group and interpolation is exact.
    """
    all_drawn = drawn.sum(axis=1, keepdims=True, dtype=_sum_type(drawn))
    total = np.rint(all_drawn).astype(np.int64)
    ranges = np.arange(n_bins + 1)
    cuts = ranges * (total // n_bins) + np.minimum(ranges, total % n_bins)
    at = np.minimum(cuts, all_drawn)
    group = np.searchsorted(ends, _first_reaching(drawn, at))
    stops = np.concatenate([np.append(0, ends + 1)[group], ends[group] + 1], axis=1)
    taken_from, taken_to = np.split(_sums_up_to(drawn, stops), 2, axis=1)
    gap_from, gap_to = np.split(_sums_up_to(gaps, stops), 2, axis=1)
    reached = gap_to - (taken_to - at) * (gap_to - gap_from) / np.maximum(taken_to - taken_from, 1)
    reached[cuts == 0] = 0
    return np.diff(reached, axis=1), np.diff(cuts, axis=1)


def _sum_type(values: NDArray[Any]) -> type[np.float64] | type[np.int64]:
    return np.float64 if values.dtype.kind == "f" else np.int64


def _first_reaching(counts: NDArray[Any], totals: NDArray[Any]) -> IntArray:
    """Row-wise index at which the cumulative sum of counts [draws, n] first reaches each of some totals.

    Only the blocks in which that happens are summed up entry by entry.
    """
    n_rows, length = counts.shape
    size = isqrt(length)
    starts, row = np.arange(0, length, size), np.arange(n_rows)[:, None]
    upto = np.cumsum(np.add.reduceat(counts, starts, axis=1, dtype=_sum_type(counts)), axis=1)
    block = (upto[:, None, :-1] < totals[:, :, None]).sum(axis=2)
    before = np.where(block > 0, upto[row, block - 1], 0)
    inside = np.minimum(starts[block][:, :, None] + np.arange(size), length - 1)
    sums = np.cumsum(counts[row[:, :, None], inside], axis=2, dtype=upto.dtype) + before[:, :, None]
    reached = inside[..., 0] + (sums[..., :-1] < totals[:, :, None]).sum(axis=2)
    return np.asarray(np.minimum(reached, length - 1))  # rounded sums may end a hair below


def _sums_up_to(values: NDArray[Any], stops: IntArray) -> NDArray[Any]:
    """Row-wise sums of values[:stop] for a few stops: faster than a cumulative sum, and more accurate."""
    n_rows, length = values.shape
    order = np.argsort(stops, axis=1)
    bounds = np.concatenate([np.zeros((n_rows, 1), dtype=np.int64), np.take_along_axis(stops, order, axis=1)], axis=1)
    flat = (bounds + np.arange(n_rows)[:, None] * length).ravel()
    inside = flat < values.size  # the last row's last part may be empty
    parts = np.zeros(len(flat), dtype=_sum_type(values))
    parts[inside] = np.add.reduceat(values.ravel(), flat[inside], dtype=parts.dtype)
    between = np.where(np.diff(bounds, axis=1) > 0, parts.reshape(bounds.shape)[:, :-1], 0)
    sums = np.empty(stops.shape, dtype=parts.dtype)
    np.put_along_axis(sums, order, np.cumsum(between, axis=1), axis=1)
    return sums


def _by_class(chunks: list[NDArray[Any]], n_classes: int) -> NDArray[Any]:
    """Chunks [n_draws, n_bins], class after class for each chunk of draws, as [draws, K, n_bins]."""
    return np.asarray(np.stack([np.concatenate(chunks[k::n_classes]) for k in range(n_classes)], axis=1))
