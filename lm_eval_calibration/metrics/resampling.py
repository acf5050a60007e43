"""Standard errors: closed form for means, and a seeded bootstrap over docs for everything else.

The bootstrap draws docs with replacement: draw b takes the docs ``indices[b]`` of
``np.random.default_rng(seed).integers(0, N, size=(draws, N))``, and the standard error is the standard
deviation (ddof=1) of the metric over the draws. A metric that is a function of sums over docs needs only how
often each doc was drawn: its *resampling weights*. All draws are then one matrix product.

Docs must come in a fixed order (by doc id), else the same seed gives another number.

Above ``EXACT_DOCS`` docs the sums themselves are drawn, from the normal distribution with the mean and
covariance that the bootstrap gives them (a sum over more than 20,000 independent draws).
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import combinations_with_replacement, pairwise
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_positive_integer, undefined

EXACT_DOCS = 20_000
"""Up to this number of docs every doc is drawn; above, their sums are drawn."""

CHUNK = 2**18
"""Resampling weights handled at a time: few enough to stay in the processor's cache."""

PRODUCT_CHUNK = 2**22
"""Resampling weights (4 MB) that are multiplied with the docs' sums, in small products."""

PRODUCT_SIZE = 2**19
"""Multiplications in one matrix product: too few for BLAS to start threads, for which it would wait long."""

KEPT_WEIGHTS = 2**27
"""Up to this many resampling weights (134 MB) the last ones stay for the next metric of the same docs."""

BLOCK = 2**16
"""Docs whose covariance is summed at a time."""

SMALL_STRATUM = 500
"""Above EXACT_DOCS the docs of a stratum are still drawn one by one where there are at most so many."""

CELLS_PER_RANGE = 20
"""Cells into which each equal-mass range is cut above EXACT_DOCS; fewer where there are many ranges."""

MIN_CELLS_PER_RANGE = 5
MAX_CELLS = 2_000
"""Cells of all classes together: their joint covariance has four times its square entries."""

ROUNDING = 1e-12
"""Share of a covariance's largest eigenvalue below which one is rounding."""

MIN_DOCS_PER_CELL = 25
"""Mean number of docs of a cell, in the rarest class, below which its total is not near enough to normal."""


def mean_stderr(values: FloatArray) -> float:
    """Standard error of a mean over docs: sd(values, ddof=1) / sqrt(N); nan for one doc."""
    if len(values) < 2:
        return undefined("a standard error needs at least two docs")
    if not np.isfinite(values).all():
        return undefined("a standard error needs finite values: some doc's is infinite")
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def bootstrap_stderr(statistic: Callable[..., Any], *arrays: ArrayLike, draws: int = 1000, seed: int = 0) -> float:
    """Standard error of any statistic by a plain bootstrap over docs.

    Draws on which the statistic is nan (undefined) are left out.

    Args:
        statistic: Takes the arrays, resampled alike along their first axis, and returns a number.
        *arrays: Arrays with one row per doc.
        draws: Number of resamples.
        seed: Seed of ``np.random.default_rng``.

    Returns:
        Standard deviation (ddof=1) over the draws, in the statistic's unit; nan for one doc, or where fewer
        than two draws are defined.

    Raises:
        ValueError: Arrays of different lengths, empty, or ``draws`` < 2.
    """
    check_positive_integer("draws", draws, at_least=2)
    data = [np.asarray(array) for array in arrays]
    lengths = sorted({len(array) for array in data})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"the arrays must have the same number of rows, at least 1; they have {lengths}")
    if lengths[0] == 1:
        return undefined("a standard error needs at least two docs")
    return spread(bootstrap_estimates(statistic, *data, draws=draws, seed=seed), n_docs=lengths[0])


def bootstrap_estimates(statistic: Callable[..., Any], *arrays: NDArray[Any], draws: int, seed: int) -> FloatArray:
    """The statistic on every resample: [draws], or [draws, F] where it returns F numbers."""
    rng = np.random.default_rng(seed)
    n_docs, estimates = len(arrays[0]), []
    for _ in range(draws):
        indices = rng.integers(0, n_docs, size=n_docs)
        estimates.append(statistic(*(array[indices] for array in arrays)))
    return np.array(estimates, dtype=np.float64)


def spread(estimates: FloatArray, *, n_docs: int) -> float:
    """Standard deviation (ddof=1) of the bootstrap estimates that are defined."""
    if n_docs < 2:
        return undefined("a standard error needs at least two docs")
    estimates = estimates[~np.isnan(estimates)]
    if len(estimates) < 2:
        return undefined("the metric is undefined on the resamples, so it has no standard error")
    return float(np.std(estimates, ddof=1))


def resampling_weights(n_docs: int, draws: int, seed: int, chunk: int = CHUNK) -> Iterator[NDArray[np.uint8]]:
    """How often each doc is drawn, a chunk of draws at a time: [n_draws, N] each, rows sum to N.

    A byte is enough: 256 times the same doc is once in 10^507.
    """
    step = max(1, chunk // n_docs)
    if n_docs * draws <= KEPT_WEIGHTS:
        weights = _kept_weights(n_docs, draws, seed)
        yield from (weights[start : start + step] for start in range(0, draws, step))
        return
    rng = np.random.default_rng(seed)
    for start in range(0, draws, step):
        yield _draw_weights(rng, n_docs, min(step, draws - start))


@lru_cache(maxsize=1)
def _kept_weights(n_docs: int, draws: int, seed: int) -> NDArray[np.uint8]:
    weights = _draw_weights(np.random.default_rng(seed), n_docs, draws)
    weights.setflags(write=False)
    return weights


def _draw_weights(rng: np.random.Generator, n_docs: int, draws: int) -> NDArray[np.uint8]:
    weights = np.empty((draws, n_docs), dtype=np.uint8)
    for row in weights:
        row[:] = np.bincount(rng.integers(0, n_docs, size=n_docs), minlength=n_docs)
    return weights


def sums_stderr(
    formula: Callable[[FloatArray], FloatArray],
    doc_sums: FloatArray,
    *,
    draws: int,
    seed: int,
    strata: IntArray | None = None,
) -> float:
    """Bootstrap standard error of a metric that is a function of sums over docs.

    Args:
        formula: From the totals [draws, F] to the metric [draws].
        doc_sums: [N, F] what each doc adds to the totals.
        draws: Number of resamples.
        seed: Seed of ``np.random.default_rng``.
        strata: [N] see :func:`normal_totals`; has no influence up to EXACT_DOCS.
    """
    check_positive_integer("draws", draws, at_least=2)
    n_docs = len(doc_sums)
    if n_docs > EXACT_DOCS:
        totals = normal_totals(doc_sums, strata, draws=draws, seed=seed)
    else:
        totals = exact_totals(doc_sums, draws=draws, seed=seed)
    return spread(formula(totals), n_docs=n_docs)


def exact_totals(doc_sums: FloatArray, *, draws: int, seed: int) -> FloatArray:
    """Totals of every resample: resampling weights [draws, N] @ doc_sums [N, F]."""
    n_docs, n_sums = doc_sums.shape
    totals = []
    for weights in resampling_weights(n_docs, draws, seed, PRODUCT_CHUNK):
        step = max(1, PRODUCT_SIZE // (len(weights) * n_sums))
        total = np.zeros((len(weights), n_sums))
        for start in range(0, n_docs, step):
            docs = slice(start, start + step)
            total += weights[:, docs].astype(np.float64) @ doc_sums[docs]
        totals.append(total)
    return np.concatenate(totals)


def normal_totals(doc_sums: FloatArray, strata: IntArray | None = None, *, draws: int, seed: int) -> FloatArray:
    """Totals [draws, F] from the bootstrap's multinomial and normal limit.

    The number of docs drawn from each stratum is drawn from the multinomial distribution, exactly. Given it,
    the totals of a stratum are normal with n_s times the mean and covariance of the stratum's docs; the docs
    of a stratum of at most ``SMALL_STRATUM`` are drawn one by one. A sum that is constant in each stratum,
    such as a count, is therefore exact, however rare its docs are.
    """
    n_docs, n_sums = doc_sums.shape
    _, member, size = np.unique(np.zeros(n_docs) if strata is None else strata, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_docs, size / n_docs, size=draws)
    totals = np.zeros((draws, n_sums))
    for stratum, n_members in enumerate(size):
        docs, n = np.flatnonzero(member == stratum), drawn[:, stratum]
        if n_members <= SMALL_STRATUM:
            totals += rng.multinomial(n, np.full(n_members, 1 / n_members)) @ doc_sums[docs]
        else:
            mean, covariance = _mean_and_covariance(doc_sums, docs)
            noise = rng.standard_normal((draws, n_sums)) @ covariance_root(covariance)
            totals += n[:, None] * mean + np.sqrt(n)[:, None] * noise
    return totals


def _mean_and_covariance(doc_sums: FloatArray, docs: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance (ddof=0) of these docs' rows, without a copy of them all."""
    blocks = [docs[start : start + BLOCK] for start in range(0, len(docs), BLOCK)]
    mean = np.sum([doc_sums[block].sum(axis=0) for block in blocks], axis=0) / len(docs)
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks:
        centred = doc_sums[block] - mean
        varying = np.flatnonzero(centred.any(axis=0))  # in a stratum most sums are constant
        covariance[np.ix_(varying, varying)] += centred[:, varying].T @ centred[:, varying]
    return mean, covariance / len(docs)


def covariance_root(covariance: FloatArray) -> FloatArray:
    """The symmetric root R of a covariance, R @ R = covariance; the covariance may be singular.

    No other root will do: the eigenvectors of eigenvalues that lie close together turn with the last bit of the
    covariance, and the draws with them, so that the docs' order or another processor would move the result.
    Eigenvalues of rounding's size are 0 here, because their square root is far larger than they are.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > ROUNDING * values[-1:], values, 0)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T, dtype=np.float64)


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
    order = np.argsort(forecasts, kind="stable")
    ranked = forecasts[order]
    ends = np.append(np.flatnonzero(ranked[1:] > ranked[:-1]), len(ranked) - 1)
    return SortedForecasts(docs[order], (outcomes - forecasts)[order], ends)


def resampled_ranges(
    classes: list[SortedForecasts], n_docs: int, *, n_bins: int, draws: int, seed: int
) -> tuple[FloatArray, IntArray]:
    """Gap sums and sizes [draws, K, n_bins] of the equal-mass ranges of K classes on every resample.

    Equal to :func:`~lm_eval_calibration.metrics.binning.equal_mass_gaps` of the resampled docs, without
    sorting again. Above EXACT_DOCS docs the totals of fine cells are drawn instead of docs, unless a class is
    too rare or there are too many ranges for that: then every doc is drawn, which takes longer.
    """
    check_positive_integer("draws", draws, at_least=2)
    per_range = min(CELLS_PER_RANGE, MAX_CELLS // (n_bins * len(classes)))
    rarest = min(len(forecasts.docs) for forecasts in classes)
    enough = per_range >= MIN_CELLS_PER_RANGE and rarest >= MIN_DOCS_PER_CELL * per_range * n_bins
    if n_docs > EXACT_DOCS and enough:
        n_cells = per_range * n_bins
        return normal_ranges(classes, n_docs, n_bins=n_bins, n_cells=n_cells, draws=draws, seed=seed)
    return exact_ranges(classes, n_docs, n_bins=n_bins, draws=draws, seed=seed)


def exact_ranges(
    classes: list[SortedForecasts], n_docs: int, *, n_bins: int, draws: int, seed: int
) -> tuple[FloatArray, IntArray]:
    """The ranges of every resample, from the resampling weights of the sorted docs."""
    gaps, sizes = [], []
    for weights in resampling_weights(n_docs, draws, seed):
        for docs, doc_gaps, ends in classes:
            weight = weights.take(docs, axis=1)  # in rows, as weights[:, docs] is not
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

    Returns:
        Totals [F] (a class' counts, then its gaps, class after class), covariance [F, F], and where in them
        each class starts, with F at the end.
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
    cell = np.repeat(np.floor(middle * n_cells / len(forecasts.docs)), length)
    return np.unique(cell, return_inverse=True)[1]


def _cut_ranges(drawn: NDArray[Any], gaps: FloatArray, ends: IntArray, n_bins: int) -> tuple[FloatArray, IntArray]:
    """Cut resampled, sorted forecasts at the boundaries of ``np.array_split``.

    Args:
        drawn: [draws, n] how often each forecast was drawn.
        gaps: [draws, n] what the copies of each one add to the gap.
        ends: [n_ties] index of the last forecast of each group of equal ones.
        n_bins: Number of ranges.

    Returns:
        Gap sums and sizes of the ranges, [draws, n_bins] each. The copies in a group have one mean gap, so
        the cumulative gap is linear within a group and interpolation is exact.
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
