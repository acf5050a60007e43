"""Every metric of two runs compared, for each task and over all docs."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.verdicts import sum_of
from lm_eval_calibration.records import Columns, Record
from lm_eval_calibration.results.alignment import Alignment, align_tasks, by_task, joined
from lm_eval_calibration.results.certificates import certificate_differences, tokenizer, tokenizer_name
from lm_eval_calibration.results.columns import ACC
from lm_eval_calibration.results.differences import METRICS, POOLED, Difference, RunComparison, TaskComparison


class Options(NamedTuple):
    """How runs are compared: bins of the binned metrics, level of each interval, seed of what is simulated."""

    n_bins: int = 10
    level: float = 0.95
    seed: int = 0


def compare_runs(
    a: Iterable[Record],
    b: Iterable[Record],
    *,
    names: Collection[str] | None = None,
    n_bins: int = 10,
    level: float = 0.95,
    seed: int = 0,
) -> RunComparison:
    """Compare two runs by every metric, b less a.

    Docs are aligned by hash within each task (see :func:`align`). The pooled comparison is paired where every task's
    is. p-values are adjusted over the tasks for each metric by itself (Holm); the pooled one is one test.
    ``full_ece`` has no difference where tokenizers or vocabularies differ or are not recorded.

    Args:
        a: records of one run; of any number of tasks.
        b: records of the other.
        names: metrics to compare by; all of ``metrics.CATALOG`` and ``acc`` if not given.
        n_bins: bins of the binned metrics.
        level: level of each interval.
        seed: of what is simulated.

    Raises:
        ValueError: no task in common, none whose docs have outcome and confidence in both runs, the same doc twice in
            one run, a task of two kinds, or a metric that is unknown.
    """
    names = tuple(METRICS) if names is None else names
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"{unknown[0]!r} is no metric; there are {', '.join(METRICS)}")
    one, other = by_task(a), by_task(b)
    aligned = align_tasks(one, other)
    options = Options(n_bins, level, seed)
    found = [compare_docs(task, alignment, names, options) for task, alignment in aligned.items()]
    compared = joined(aligned.values())
    pooled = found[0] if len(found) == 1 else compare_docs(POOLED, compared, names, options)
    kinds = {record.kind for record in (*compared.a, *compared.b)}
    return RunComparison(
        tasks=_adjusted(found, names, 1 - level),
        pooled=replace(pooled, task=POOLED) if len(kinds) == 1 else None,
        only_a=tuple(sorted(one.keys() - other.keys())),
        only_b=tuple(sorted(other.keys() - one.keys())),
        left_out=tuple(sorted(one.keys() & other.keys() - aligned.keys())),
        certificate_differences=certificate_differences(*compared.certificates),
        n_bins=n_bins,
        level=level,
    )


class _Arrays(NamedTuple):
    """A run's arrays, why those that are missing are, and the clusters of the docs by kind of metric."""

    run: metrics.Run
    missing: dict[str, str]
    clusters: dict[str, Any]


def to_run(records: Sequence[Record], n_bins: int = 10) -> _Arrays:
    """Return a run's arrays, by task and doc id.

    Args:
        records: with sound gold labels.
        n_bins: bins of the gap sums.
    """
    columns = Columns.of(records, n_bins)
    arrays: dict[str, Any] = {}
    missing: dict[str, str] = {}
    clusters: dict[str, Any] = {}
    for kind, fields in metrics.RUN_FIELDS.items():
        if kind == "choices" and any(record.kind != "multiple_choice" for record in records):
            continue
        try:
            arrays |= dict(zip(fields, columns.arrays(kind), strict=True))
            clusters[kind] = columns.clusters(kind)
        except ValueError as error:
            missing[kind] = str(error)
    return _Arrays(metrics.Run(**arrays, tokenizer=tokenizer(records)), missing, clusters)


def compare_docs(task: str, docs: Alignment, names: Collection[str], options: Options) -> TaskComparison:
    """Compare the docs of a task, or of several that are joined; each metric's test is by itself."""
    a, missing_a, clusters_a = to_run(docs.a, options.n_bins)
    b, missing_b, clusters_b = to_run(docs.b, options.n_bins)
    refusal = _refusal(docs, a, b)
    differences = {}
    for name in (name for name in METRICS if name in names):
        kind = METRICS[name].kind
        if reason := missing_a.get(kind) or missing_b.get(kind) or _not_installed(name):
            differences[name] = _undefined(name, reason)
        elif all(getattr(run, metrics.RUN_FIELDS[kind][0]) is not None for run in (a, b)):
            if name == "full_ece" and refusal:
                differences[name] = _undefined(name, refusal)
            else:
                of_a, of_b = clusters_a[kind], clusters_b[kind]
                of_pairs = of_b if of_a is None else of_a  # one of the runs may not know it
                how = {"paired": docs.paired, "cluster": of_pairs if docs.paired else (of_a, of_b)}
                differences[name] = _difference(name, a, b, {**options._asdict(), **how})
    return TaskComparison(
        task=task,
        paired=docs.paired,
        n_a=len(docs.a),
        n_b=len(docs.b),
        left_out_a=docs.left_out_a,
        left_out_b=docs.left_out_b,
        other_prompts=docs.other_prompts,
        other_golds=docs.other_golds,
        differences=differences,
        n_clusters=docs.n_clusters,
    )


def _difference(name: str, a: metrics.Run, b: metrics.Run, options: dict[str, Any]) -> Difference:
    """One metric's difference, with the reason where it is undefined; nothing is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = metrics.compare(a, b, names=[name], **options)[name]
        total = _total(name, a, b, options)
    undefined = [w for w in caught if w.category.__name__ == "UndefinedMetricWarning"]  # of a module slow to import
    reasons = dict.fromkeys(str(w.message) for w in undefined)
    for w in caught:
        if w not in undefined:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    of_a, of_b, difference, low, high, p_value, verdict = found
    why = "; ".join(reasons)
    same = options["paired"] and _is_same(name, a, b)
    return Difference(name, of_a, of_b, difference, low, high, p_value, p_value, 1, why, verdict, total, same)


def _is_same(name: str, a: metrics.Run, b: metrics.Run) -> bool:
    """Whether the metric is of the same numbers, doc by doc."""
    fields = ("correct",) if name == ACC else metrics.RUN_FIELDS[METRICS[name].kind]
    return all(_equal(getattr(a, field), getattr(b, field)) for field in fields)


def _equal(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(np.array_equal(*rows) for rows in zip(one, other, strict=True))


def _total(name: str, a: metrics.Run, b: metrics.Run, options: dict[str, Any]) -> tuple[float, float] | None:
    """Interval of the sum of both runs' values, of a metric whose sign matters."""
    metric = METRICS[name]
    if metric.higher_is_better is not None:
        return None
    own = {"level": options["level"], "seed": options["seed"]}
    clusters = (options["cluster"],) * 2 if options["paired"] else options["cluster"]
    arrays = [[getattr(run, field) for field in metrics.RUN_FIELDS[metric.kind]] for run in (a, b)]
    return sum_of(*(metric.interval(*of_run, cluster=of, **own) for of_run, of in zip(arrays, clusters, strict=True)))


def _undefined(name: str, reason: str) -> Difference:
    nan = float("nan")
    return Difference(name, nan, nan, nan, nan, nan, nan, nan, 0, reason)


def _refusal(docs: Alignment, a: metrics.Run, b: metrics.Run) -> str:
    """Why full_ece can't be compared; "" where it can."""
    if a.tokenizer is None or b.tokenizer is None:
        return "full_ece: a run has several tokenizers, or its records don't name one"
    if a.tokenizer != b.tokenizer:
        one, other = tokenizer_name(docs.a), tokenizer_name(docs.b)
        other = "one of the same name with other entries" if one == other else other
        return f"full_ece is compared within one tokenizer only, not between {one} and {other}"
    if docs.paired and a.n_positions is not None and not np.array_equal(a.n_positions, np.asarray(b.n_positions)):
        return "full_ece: the gold answers of the same docs have other numbers of tokens"
    return ""


def _not_installed(name: str) -> str:
    package = METRICS[name].requires
    is_missing = package is not None and find_spec(package) is None
    return f"{name} needs pip install 'lm-eval-calibration[{name}]'" if is_missing else ""


def _adjusted(found: Sequence[TaskComparison], names: Collection[str], alpha: float) -> tuple[TaskComparison, ...]:
    """The same with p-values adjusted over the tasks, for each metric; verdicts stay where these are small, too."""
    rows = [dict(task.differences) for task in found]
    for name in names:
        mine = [differences for differences in rows if name in differences]
        p_values = np.array([differences[name].p_value for differences in mine])
        n_tests = int(np.count_nonzero(~np.isnan(p_values)))
        for differences, adjusted in zip(mine, metrics.holm(p_values).tolist(), strict=True):
            verdict = differences[name].verdict if adjusted <= alpha else ""
            one = differences[name]._replace(p_adjusted=adjusted, n_tests=n_tests, verdict=verdict)
            differences[name] = one
    return tuple(replace(task, differences=row) for task, row in zip(found, rows, strict=True))
