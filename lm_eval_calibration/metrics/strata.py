"""Every metric within each stratum of the docs (subject, age group, site, language), and against the other docs."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.comparison import RUN_FIELDS, Run, comparable, compare, holm
from lm_eval_calibration.metrics.registry import COMPARED
from lm_eval_calibration.metrics.validation import IntArray


class StratumMetric(NamedTuple):
    """A metric of one stratum's docs, pooled.

    Attributes:
        stratum: Its name.
        n_docs: Its number of docs.
        name: Of the metric.
        value: Over these docs.
        low: Lower end of its interval.
        high: Upper end of its interval.
        difference: Estimate of it less that of all other docs, which for binned errors are less their bias; nan
            where there are no others.
        p_value: Of no difference, two-sided.
        p_adjusted: The same adjusted over the strata (Holm).
        n_tests: Number of strata that this was over.
    """

    stratum: str
    n_docs: int
    name: str
    value: float
    low: float
    high: float
    difference: float
    p_value: float
    p_adjusted: float
    n_tests: int


def by_stratum(
    run: Run,
    strata: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    n_bins: int = 10,
    level: float = 0.95,
    seed: int = 0,
    cluster: ArrayLike | None = None,
) -> list[StratumMetric]:
    """Compute every metric of each stratum, with an interval, and compare it with the other docs.

    Args:
        run: Arrays of N docs.
        strata: [N] name of the stratum of each doc.
        names: "acc" and metrics of ``CATALOG``; all of which the run has the arrays, where not given.
        n_bins: Number of bins of the binned metrics; that of ``full_ece`` is in its gap sums.
        level: Level of each interval.
        seed: Seed of ``np.random.default_rng``.
        cluster: [N] name of what each doc was drawn with, within a stratum or across strata (one text in several
            languages); none where each was drawn by itself.

    Returns:
        Metrics of the first stratum in alphabetical order, then those of the next. Numbers are nan, with
        UndefinedMetricWarning, where they are undefined.

    Raises:
        ValueError: Bad input; a metric that is unknown or whose arrays are missing; strata of another length.
    """
    of_doc = np.asarray(strata)
    names_of_clusters = None if cluster is None else np.asarray(cluster)
    if names_of_clusters is not None and names_of_clusters.shape != of_doc.shape:
        raise ValueError(f"cluster has shape {names_of_clusters.shape}, but strata has {of_doc.shape}")
    chosen = list(names) if names is not None else comparable(run, run)
    options: dict[str, Any] = {"n_bins": n_bins, "level": level, "seed": seed}
    found: list[StratumMetric] = []
    for stratum in np.unique(of_doc):
        inside, outside = _take(run, of_doc == stratum), _take(run, of_doc != stratum)
        has_others = bool((of_doc != stratum).any())
        member = of_doc == stratum
        pair = None if names_of_clusters is None else (names_of_clusters[~member], names_of_clusters[member])
        compared = compare(outside, inside, names=chosen, paired=False, **options, cluster=pair) if has_others else {}
        for name in chosen:
            value, low, high = _with_interval(inside, name, options, None if pair is None else pair[1])
            difference, p_value = (compared[name].difference, compared[name].p_value) if compared else (np.nan, np.nan)
            row = (str(stratum), int((of_doc == stratum).sum()), name, value, low, high, difference, p_value)
            found.append(StratumMetric(*row, p_adjusted=np.nan, n_tests=0))
    return _adjusted(found)


def _with_interval(run: Run, name: str, options: dict[str, Any], cluster: Any) -> tuple[float, float, float]:
    metric = COMPARED[name]
    arrays = [getattr(run, field) for field in RUN_FIELDS[metric.kind]]
    bins = {"n_bins": options["n_bins"]} if metric.takes_n_bins else {}
    with warnings.catch_warnings():
        if np.isnan(value := metric.value(*arrays, **bins)):
            warnings.simplefilter("ignore")  # the reason was given with the value
        how = {"level": options["level"], "seed": options["seed"], "cluster": cluster}
        return value, *metric.interval(*arrays, **bins, **how)


def _adjusted(found: list[StratumMetric]) -> list[StratumMetric]:
    """The same with p-values adjusted over the strata of each metric."""
    p_values: dict[str, list[float]] = {}
    for row in found:
        p_values.setdefault(row.name, []).append(row.p_value)
    adjusted = {name: iter(holm(values).tolist()) for name, values in p_values.items()}
    n_tests = {name: int(np.count_nonzero(~np.isnan(values))) for name, values in p_values.items()}
    return [row._replace(p_adjusted=next(adjusted[row.name]), n_tests=n_tests[row.name]) for row in found]


def _take(run: Run, member: Any) -> Run:
    """These docs of a run; its own tokenizer is the same throughout."""
    which: IntArray = np.flatnonzero(member)
    arrays: dict[str, Any] = {}
    for field in (field for fields in RUN_FIELDS.values() for field in fields):
        array = getattr(run, field)
        if array is not None and len(array) != len(member):
            raise ValueError(f"strata has {len(member)} rows, but {field} has {len(array)}")
        if isinstance(array, list):
            arrays[field] = [array[i] for i in which]
        elif array is not None:
            arrays[field] = np.asarray(array)[which]
    return Run(**arrays, tokenizer=run.tokenizer or "its own")
