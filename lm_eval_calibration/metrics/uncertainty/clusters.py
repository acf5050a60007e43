"""Docs that were drawn together (questions of one passage, lines of one program, visits of one patient).

Docs of a cluster say less than as many independent ones. Everything here is of an influence: what each doc adds to an
estimate, to first order, with mean 0 over docs. Its sums over clusters are independent, whatever hangs together
within; a doc alone is a cluster of one, so there is one formula. With few or unequal clusters the variance of these
sums is itself uncertain: Student's t has as many degrees of freedom as there are effective clusters, less 1.

Source: Miller 2024, arXiv:2411.00640; Bell & McCaffrey 2002 (leverage); Carter, Schnepel & Steigerwald 2017 (effective
number of clusters); Korn & Graubard 1998 (effective number of docs of a share).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from lm_eval_calibration.metrics.uncertainty.shares import Interval, share_interval
from lm_eval_calibration.metrics.validation import FloatArray, IntArray


def check_cluster(cluster: ArrayLike, n_docs: int) -> IntArray | None:
    """Clusters numbered from 0 in the order of their first docs, [n_docs]; None where each doc is alone in its own.

    Raises ValueError: not one name a doc.
    """
    names = np.asarray(cluster)
    if names.shape != (n_docs,):
        raise ValueError(f"cluster has shape {names.shape}; it must have one name for each of {n_docs} docs")
    found, first, number = np.unique(names, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[number]  # so that no bootstrap depends on what clusters are called
    return None if len(found) == n_docs else np.asarray(number, dtype=np.int64)


def too_few_clusters(cluster: IntArray | None) -> str | None:
    """Why docs in these clusters have no standard error, interval or null; None where they have."""
    if cluster is None or cluster.max() > 0:
        return None
    return f"all {len(cluster)} docs are of one cluster; it takes two clusters at least"


def cluster_sums(rows: NDArray[Any], cluster: IntArray | None) -> NDArray[Any]:
    """Sums of the rows [N, ...] of each cluster, [G, ...]; the rows themselves where there are no clusters."""
    if cluster is None:
        return rows
    flat = rows.reshape(len(rows), -1)
    sums = np.stack([np.bincount(cluster, weights=column) for column in flat.T], axis=1)
    return sums.reshape(-1, *rows.shape[1:])


def independent_sums(influence: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Sums [G, ...] whose products add up to N^2 times the covariance of the estimate.

    Centring makes a cluster's sum too small by the cluster's share of the docs. Products of docs that are alone are
    divided by 1 - 1 / N, the N - 1 of a variance. Sums of clusters are divided by 1 - share, which makes them those of
    the jackknife (CR3): a little too large on average, where an unbiased variance of few unequal clusters is too small
    most of the time.
    """
    n_docs, sums = len(influence), cluster_sums(influence, cluster)
    if cluster is None:
        return np.asarray(sums / np.sqrt(1 - 1 / n_docs))
    share = np.minimum(np.bincount(cluster) / n_docs, 1 - 1 / n_docs)
    return np.asarray(sums / (1 - share).reshape(-1, *[1] * (sums.ndim - 1)))


def n_apart(member: NDArray[np.bool_], cluster: IntArray | None) -> int:
    """How many of these docs were drawn apart from each other: [N] which, counted once a cluster."""
    return int(np.count_nonzero(member)) if cluster is None else len(np.unique(cluster[member]))


def influence_stderr(influence: FloatArray, cluster: IntArray | None) -> float:
    """Standard error of an estimate from what each doc adds to it."""
    return float(np.sqrt(np.sum(independent_sums(influence, cluster) ** 2)) / len(influence))


def unbiased_stderr(influence: FloatArray, cluster: IntArray) -> float:
    """Standard error of a mean whose square is right on average over equal clusters, from what each doc adds."""
    share = np.minimum(np.bincount(cluster) / len(influence), 1 - 1 / len(influence))
    sums = cluster_sums(influence, cluster) * (1 / np.sqrt(1 - share))
    return float(np.sqrt(np.sum(sums**2)) / len(influence))


def degrees_of_freedom(n_docs: int, cluster: IntArray | None) -> float:
    """Effective number of clusters less 1: N^2 / sum n_g^2 - 1; N - 1 where docs are alone."""
    if cluster is None:
        return n_docs - 1
    return max(1.0, float(n_docs**2 / np.sum(np.bincount(cluster) ** 2)) - 1)


def t_quantile(level: float, n_docs: int, cluster: IntArray | None = None) -> float:
    """Upper quantile of Student's t for a two-sided interval."""
    return float(-stdtrit(degrees_of_freedom(n_docs, cluster), (1 - level) / 2))


def z_quantile(level: float) -> float:
    """Upper quantile of the normal distribution for a two-sided interval."""
    return float(-ndtri((1 - level) / 2))


def effective_docs(event: FloatArray, cluster: IntArray | None, level: float) -> float:
    """Number of independent docs that would tell as much of the share of an event as these do.

    Where all or none have it nothing tells how alike the docs of a cluster are: then each cluster counts as one doc.
    """
    n_docs, share = len(event), float(event.mean())
    if cluster is None:
        return float(n_docs)
    if share in (0, 1):
        return degrees_of_freedom(n_docs, cluster) + 1
    alone = share * (1 - share) / (n_docs - 1)
    effect = max(1.0, influence_stderr(event - share, cluster) ** 2 / alone)
    return float(n_docs / effect * (z_quantile(level) / t_quantile(level, n_docs, cluster)) ** 2)


def event_interval(event: FloatArray, cluster: IntArray | None, level: float) -> Interval:
    """Mid-P interval of the share of docs with an event, [N] 0 or 1."""
    n_docs = effective_docs(event, cluster, level)
    return share_interval(float(event.mean()) * n_docs, n_docs, level)
