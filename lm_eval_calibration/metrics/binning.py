"""The two ways of binning: equal-width bins on [0, 1], and equal-mass ranges of the sorted forecasts."""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_n_bins, check_probability_vector


def bin_edges(n_bins: int = 10) -> FloatArray:
    """Edges m / n_bins of the equal-width bins, m = 0..n_bins.

    Raises ValueError: ``n_bins`` is not a positive integer.
    """
    n_bins = check_n_bins(n_bins)
    return np.arange(n_bins + 1) / n_bins


def bin_index(values: ArrayLike, n_bins: int = 10) -> IntArray:
    """Index of the equal-width bin that holds each value: m / n_bins <= value < (m + 1) / n_bins.

    The last bin is closed at 1. The edges are the correctly rounded quotients m / n_bins, so 0.3 is in bin 3
    of 10, where ``np.histogram`` puts it in bin 2; ``int(value * n_bins)`` differs from n_bins = 22 on.

    values: [N] numbers in [0, 1]. n_bins: number of bins.
    Returns [N] integers in 0..n_bins - 1. Raises ValueError: a value is nan or outside [0, 1]; ``n_bins`` is not a
    positive integer.
    """
    array = check_probability_vector("values", values)
    edges = bin_edges(n_bins)
    return np.clip(np.searchsorted(edges, array, side="right") - 1, 0, n_bins - 1)


def bin_sums(index: IntArray, values: FloatArray, n_bins: int) -> FloatArray:
    """Sum of the values in each bin, float64 [n_bins]; an empty bin has 0."""
    return np.bincount(index, weights=values, minlength=n_bins).astype(np.float64, copy=False)


def range_sizes(n_docs: int, n_bins: int) -> IntArray:
    """Sizes of ``np.array_split``'s ranges: the first n_docs mod n_bins are one longer; some may be 0."""
    return n_docs // n_bins + (np.arange(n_bins) < n_docs % n_bins)


def tie_means(forecasts: FloatArray, outcomes: FloatArray) -> FloatArray:
    """Each outcome replaced by the mean outcome of the docs with the same forecast: order is no matter."""
    _, group, size = np.unique(forecasts, return_inverse=True, return_counts=True)
    return (bin_sums(group, outcomes, len(size)) / size)[group]


def equal_mass_gaps(forecasts: FloatArray, outcomes: FloatArray, n_bins: int) -> tuple[FloatArray, IntArray]:
    """Sum of (outcome - forecast) in each equal-mass range of the sorted forecasts, and the ranges' sizes.

    Ranges are those of ``np.array_split``; ties take their mean outcome first. With fewer docs than ranges
    the last ranges are empty: gap 0, size 0.
    """
    sizes = range_sizes(len(forecasts), n_bins)
    return range_gaps(forecasts, outcomes, sizes), sizes


def range_gaps(forecasts: FloatArray, outcomes: FloatArray, sizes: IntArray) -> FloatArray:
    """Sum of (outcome - forecast) in each range of the sorted forecasts, ranges of these sizes.

    Ties take their mean outcome first.
    """
    order = np.argsort(forecasts)  # tied docs in any order: all have one mean outcome
    ranked = forecasts[order]
    starts = np.append(0, np.flatnonzero(ranked[1:] > ranked[:-1]) + 1)
    ties = np.diff(starts, append=len(ranked))
    gaps = np.repeat(np.add.reduceat(outcomes[order], starts) / ties, ties) - ranked
    return bin_sums(np.repeat(np.arange(len(sizes)), sizes), gaps, len(sizes))


def sizes_of_at_least(n_docs: int, size: int) -> IntArray:
    """Sizes of ranges of ``size`` docs, the last of which also takes the docs that are left: one range at least."""
    n_ranges = max(1, n_docs // size)
    return np.append(np.full(n_ranges - 1, size), n_docs - size * (n_ranges - 1))
