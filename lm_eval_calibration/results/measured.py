"""A metric of some docs with all that belongs beside it: standard error, interval, and why where it is undefined."""

import math
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.metrics import CATALOG, COMPARED, GENERATION_CATALOG, Metric, Null
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.shares import share_interval
from lm_eval_calibration.results.columns import ACC

LEVEL = 0.95
"""Of every interval."""


class Measured(NamedTuple):
    """A metric of some docs.

    Attributes:
        value: nan where it is undefined.
        stderr: standard error; nan for a single doc.
        low: lower end of the 95% interval of the population's value.
        high: upper end.
        n_docs: number of docs.
        reason: why something of it is nan; None where nothing is.
        n_clusters: of how many clusters these docs are; None where each was drawn by itself, as far as is known.
    """

    value: float
    stderr: float
    low: float
    high: float
    n_docs: int
    reason: str | None = None
    n_clusters: int | None = None


def measure(
    metric: Metric, arrays: tuple[Any, Any], n_bins: int, *, cluster: Any = None, with_stderr: bool = True
) -> Measured:
    """Return a metric of the docs of these arrays, which are of the metric's kind.

    Args:
        metric: of the catalog.
        arrays: that it takes.
        n_bins: bins of the binned metrics.
        cluster: [N] what each doc was drawn with; None where each was by itself.
        with_stderr: whether the standard error, which is slow where it is a bootstrap, is wanted; else it is nan.
    """
    n_docs = len(arrays[1])
    if n_docs == 0:
        return undefined("no doc has a sound gold label and a confidence")
    options = {"n_bins": n_bins} if metric.takes_n_bins else {}
    nan = math.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(metric.value(*arrays, **options))
        stderr = float(metric.stderr(*arrays, **options, cluster=cluster)) if n_docs > 1 and with_stderr else nan
        low, high = metric.interval(*arrays, **options, cluster=cluster) if n_docs > 1 else (nan, nan)
    reasons = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    if n_docs == 1:
        reasons.append("one doc has no standard error")
    is_whole = not any(map(math.isnan, (value, stderr if with_stderr else 0.0, low, high)))
    reason = None if is_whole else "; ".join(dict.fromkeys(reasons)) or None
    return Measured(value, stderr, low, high, n_docs, reason, _number_of(cluster))


def estimate(metric: Metric, arrays: tuple[Any, Any], n_bins: int, *, cluster: Any = None) -> tuple[Measured, Estimate]:
    """Return what :func:`measure` does without a standard error, and the estimate that the interval is of.

    Raises:
        ValueError: no docs.
    """
    if len(arrays[1]) == 0:
        raise ValueError("no doc has a sound gold label and a confidence")
    options = {"n_bins": n_bins} if metric.takes_n_bins else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(metric.value(*arrays, **options))
        found = metric.estimate(*arrays, **options, cluster=cluster)
    reasons = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    reason = "; ".join(dict.fromkeys(reasons)) if any(map(math.isnan, (value, found.low, found.high))) else None
    told = Measured(value, math.nan, found.low, found.high, len(arrays[1]), reason or None, _number_of(cluster))
    return told, found


def measure_null(metric: Metric, arrays: tuple[Any, Any], n_bins: int, *, cluster: Any = None) -> Null | None:
    """Return what a calibrated model would show on these docs; None where the metric has no such thing or no docs."""
    if metric.null is None or len(arrays[1]) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the metric's own value says why it is undefined
        return metric.null(*arrays, **({"n_bins": n_bins} if metric.takes_n_bins else {}), cluster=cluster)


def accuracy(correct: Any, cluster: Any = None) -> Measured:
    """Return the share of right answers, [N] 1 or 0, with the interval of ``metrics.acc``, and the harness's own error.

    Where docs were drawn in clusters, both are those of clustered docs.
    """
    n_right, n_docs = int(np.sum(correct)), len(correct)
    if n_docs == 0:
        return undefined("no docs")
    if cluster is not None:
        return measure(COMPARED[ACC], (np.ones(n_docs), correct), 0, cluster=cluster)
    share, (low, high) = n_right / n_docs, share_interval(n_right, n_docs, LEVEL)
    stderr = math.sqrt(share * (1 - share) / (n_docs - 1)) if n_docs > 1 else math.nan
    return Measured(share, stderr, low, high, n_docs, None if n_docs > 1 else "one doc has no standard error")


def _number_of(cluster: Any) -> int | None:
    return None if cluster is None else len(np.unique(cluster))


def undefined(reason: str, n_docs: int = 0) -> Measured:
    """Return nan throughout."""
    return Measured(math.nan, math.nan, math.nan, math.nan, n_docs, reason)


def metric_of(name: str, kinds: Collection[str] = ()) -> Metric:
    """Return a metric as it is defined for docs of these kinds; raise ValueError where there is none of this name."""
    if name not in CATALOG:
        raise ValueError(f"no metric {name!r}; there are {ACC}, {', '.join(CATALOG)}")
    return (GENERATION_CATALOG if kinds and set(kinds) <= {"generation", "answer"} else CATALOG).get(
        name, CATALOG[name]
    )
