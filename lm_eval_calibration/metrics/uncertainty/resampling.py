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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.uncertainty.clusters import cluster_sums, unbiased_stderr
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

ROUNDING = 1e-12
"""Share of a covariance's largest eigenvalue below which one is rounding."""


def mean_stderr(values: FloatArray, cluster: IntArray | None = None) -> float:
    """Standard error of a mean over docs: sd(values, ddof=1) / sqrt(N), or that of cluster sums; nan for one doc."""
    if len(values) < 2:
        return undefined("a standard error needs at least two docs")
    if not np.isfinite(values).all():
        return undefined("a standard error needs finite values: some doc's is infinite")
    if cluster is not None:
        return unbiased_stderr(values - values.mean(), cluster)
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def bootstrap_stderr(
    statistic: Callable[..., Any],
    *arrays: ArrayLike,
    draws: int = 1000,
    seed: int = 0,
    cluster: IntArray | None = None,
) -> float:
    """Standard error of any statistic by a plain bootstrap over docs, or over clusters of docs.

    Draws on which the statistic is nan (undefined) are left out.

    statistic: takes the arrays, resampled alike along their first axis, and returns a number. *arrays: arrays with
    one row per doc. draws: number of resamples. seed: seed of ``np.random.default_rng``.
    cluster: [N] cluster of each doc, numbered from 0, which is drawn whole.
    Returns standard deviation (ddof=1) over the draws, in the statistic's unit; nan for one doc, or where fewer than
    two draws are defined. Raises ValueError: arrays of different lengths, empty, or ``draws`` < 2.
    """
    check_positive_integer("draws", draws, at_least=2)
    data = [rows(array) for array in arrays]
    lengths = sorted({len(array) for array in data})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"the arrays must have the same number of rows, at least 1; they have {lengths}")
    if lengths[0] == 1:
        return undefined("a standard error needs at least two docs")
    drawn = bootstrap_estimates(statistic, *data, draws=draws, seed=seed, cluster=cluster)
    return spread(drawn, n_docs=lengths[0])


def rows(array: Any) -> NDArray[Any]:
    """One row a doc, as an array that can be resampled; vectors of different lengths as objects."""
    if hasattr(array, "__array__") or not len(array) or len({np.shape(row) for row in array}) == 1:
        return np.asarray(array)
    ragged = np.empty(len(array), dtype=object)
    ragged[:] = [np.asarray(row) for row in array]
    return ragged


def bootstrap_estimates(
    statistic: Callable[..., Any], *arrays: NDArray[Any], draws: int, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    """The statistic on every resample: [draws], or [draws, F] where it returns F numbers."""
    rng = np.random.default_rng(seed)
    n_docs, estimates = len(arrays[0]), []
    members = None if cluster is None else np.split(np.argsort(cluster, kind="stable"), _ends(cluster))
    for _ in range(draws):
        if members is None:
            indices = rng.integers(0, n_docs, size=n_docs)
        else:
            indices = np.concatenate([members[g] for g in rng.integers(0, len(members), size=len(members))])
        estimates.append(statistic(*(array[indices] for array in arrays)))
    return np.array(estimates, dtype=np.float64)


def _ends(cluster: IntArray) -> IntArray:
    """Where each cluster but the last ends, once docs are sorted by cluster."""
    return np.cumsum(np.bincount(cluster))[:-1]


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
    cluster: IntArray | None = None,
) -> float:
    """Bootstrap standard error of a metric that is a function of sums over docs.

    formula: from the totals [draws, F] to the metric [draws]. doc_sums: [N, F] what each doc adds to the totals.
    draws: number of resamples. seed: seed of ``np.random.default_rng``. strata: [N] see :func:`normal_totals`; has
    no influence up to EXACT_DOCS. cluster: [N] clusters that are drawn whole; the docs of a cluster are one row then.
    """
    n_docs = len(doc_sums)
    if cluster is not None:
        doc_sums = cluster_sums(doc_sums, cluster)
        totals = exact_totals(doc_sums, draws=draws, seed=seed)
    elif n_docs > EXACT_DOCS:
        totals = normal_totals(doc_sums, strata, draws=draws, seed=seed)
    else:
        totals = exact_totals(doc_sums, draws=draws, seed=seed)
    return spread(formula(totals), n_docs=n_docs)


def binned_stderr(
    formula: Callable[[FloatArray, FloatArray], FloatArray],
    sums: FloatArray,
    n_gaps: int,
    *,
    draws: int,
    seed: int,
    strata: IntArray | None = None,
    cluster: IntArray | None = None,
) -> float:
    """:func:`sums_stderr` of a formula of two totals: of the first ``n_gaps`` sums, gaps, and of the others, counts."""
    options: dict[str, Any] = {"draws": draws, "seed": seed, "strata": strata, "cluster": cluster}
    return sums_stderr(lambda t: formula(t[:, :n_gaps], t[:, n_gaps:]), sums, **options)


def ratio_stderr(
    sums: FloatArray, counts: IntArray, *, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    """:func:`sums_stderr` of sum_m |sum_i sums_im| / sum_i counts_i."""
    columns = np.column_stack([sums, counts]).astype(np.float64)
    options: dict[str, Any] = {"draws": draws, "seed": seed, "cluster": cluster}
    return sums_stderr(lambda t: np.abs(t[:, :-1]).sum(axis=1) / t[:, -1], columns, **options)


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
    member = np.zeros(n_docs, dtype=np.int64) if strata is None else strata
    counts = np.bincount(member)
    present = np.flatnonzero(counts)
    size = counts[present]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_docs, size / n_docs, size=draws)
    totals = np.zeros((draws, n_sums))
    for stratum, n_members, n in zip(present, size, drawn.T, strict=True):
        docs = np.flatnonzero(member == stratum)
        if n_members <= SMALL_STRATUM:
            totals += rng.multinomial(n, np.full(n_members, 1 / n_members)) @ doc_sums[docs]
        else:
            mean, covariance = _mean_and_covariance(doc_sums, docs)
            noise = rng.standard_normal((draws, n_sums)) @ covariance_root(covariance)
            totals += n[:, None] * mean + np.sqrt(n)[:, None] * noise
    return totals


def _mean_and_covariance(doc_sums: FloatArray, docs: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance (ddof=0) of these docs' rows, without a copy of them all.

    Both from what rows differ by from the first, which loses no digits: in a stratum most sums are constant.
    """
    first = doc_sums[docs[0]]
    total, products = np.zeros(len(first)), np.zeros((len(first), len(first)))
    for start in range(0, len(docs), BLOCK):
        beyond = doc_sums[docs[start : start + BLOCK]] - first
        varying = np.flatnonzero(beyond.any(axis=0))
        some = beyond[:, varying]
        total[varying] += some.sum(axis=0)
        products[np.ix_(varying, varying)] += some.T @ some
    mean = total / len(docs)
    return first + mean, products / len(docs) - np.outer(mean, mean)


def covariance_root(covariance: FloatArray) -> FloatArray:
    """The symmetric root R of a covariance, R @ R = covariance; the covariance may be singular.

    No other root will do: the eigenvectors of eigenvalues that lie close together turn with the last bit of the
    covariance, and the draws with them, so that the docs' order or another processor would move the result.
    Eigenvalues of rounding's size are 0 here, because their square root is far larger than they are.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > ROUNDING * values[-1:], values, 0)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T, dtype=np.float64)
