"""The registry of metrics: each is one object, and whoever needs a list of them reads the registry.

A new metric is its formula under one decorator, in whichever file::

    @metric("top_label", higher_is_better=False)
    def mean_deviation(confidence, correct):
        conf, hit = check_top_label(confidence, correct)
        return float(np.mean(np.abs(conf - hit)))

With that it has a value, a standard error, an interval, a null, and a row in ``CATALOG``, ``compare``,
``by_stratum`` and every table and report that is built on them. What it does not bring is simulated: a bootstrap
over docs gives the standard error (1,000 draws) and a percentile interval, outcomes drawn from the forecasts give
the null. A percentile interval of a biased estimate, such as any binned error, does not hold its level: give such a
metric an ``estimate`` of its own.

What a metric brings are functions of the arrays that its kind's check returns (``confidence`` and ``correct`` as
float64; :class:`~lm_eval_calibration.metrics.validation.Choices`; gap sums and positions) and of those of the
keyword-only options ``n_bins``, ``draws``, ``level`` and ``seed`` that they take.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

from lm_eval_calibration.metrics.definition import Definition, value_and_reason
from lm_eval_calibration.metrics.kinds import KINDS, KindName, Table
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.uncertainty.nulls import Null
from lm_eval_calibration.metrics.uncertainty.shares import Interval

Function = TypeVar("Function", bound=Callable[..., float])


@dataclass(frozen=True)
class Metric:
    """One metric: all functions take the two arrays of its kind, unchecked, and raise ValueError for bad ones.

    Attributes:
        name: The name in tables, JSON and the Python API.
        kind: What it takes: "top_label" (confidence, correct), "choices" (probs, labels), "full_vocabulary"
            (gap_sums, n_positions), "token_gaps" (gaps, n_tokens), "token_counts" (n_correct, n_tokens).
        higher_is_better: None where the sign matters.
        value: The metric; nan, with an UndefinedMetricWarning that says why, where it is undefined.
        stderr: Its standard error.
        estimate: What the interval and the paired comparison use: value, ends, effect of each doc. Takes ``level``
            and ``seed``.
        interval: Its confidence interval; takes ``level`` and ``seed``.
        null: What calibration would show; takes ``seed``. None where nothing depends on calibration.
        takes_n_bins: Whether these functions take ``n_bins``.
        tables: Where it is defined: for "choices", "generation" (written answers), "corpus".
        core: Which of these print it where nobody names metrics.
        order: Its place in the catalogs.
        in_place_of: The metric of choices whose row it takes where there is one confidence a doc.
        requires: A package that it needs and that may be missing.
        by_order: Whether the order of the docs by confidence is all that matters, so that any rising map leaves it.
    """

    name: str
    kind: KindName
    higher_is_better: bool | None
    value: Callable[..., float]
    stderr: Callable[..., float]
    estimate: Callable[..., Estimate]
    interval: Callable[..., Interval]
    null: Callable[..., Null] | None
    takes_n_bins: bool
    tables: tuple[Table, ...]
    core: tuple[Table, ...] = ()
    order: int = 1000
    in_place_of: str | None = None
    requires: str | None = None
    by_order: bool = False

    def undefined_reason(self, first: Any, second: Any, **options: Any) -> str | None:
        """Why the metric of these arrays is undefined; None where it is defined."""
        return value_and_reason(self.value, first, second, **options)[1]


_METRICS: list[Metric] = []


def register(metric: Metric) -> Metric:
    """Add a metric to the registry.

    Raises:
        ValueError: One of its name is there already, defined for the same docs.
    """
    for table in metric.tables:
        if metric.name in _Catalog(table):
            raise ValueError(f"there is a metric {metric.name!r} already")
    _METRICS.append(metric)
    return metric


@contextmanager
def temporarily(metric: Metric) -> Iterator[Metric]:
    """Register a metric within a ``with`` block only, as tests do."""
    register(metric)
    try:
        yield metric
    finally:
        _METRICS.remove(metric)


def registered() -> tuple[Metric, ...]:
    """All metrics, in the order in which they were registered."""
    return tuple(_METRICS)


class _Catalog(Mapping[str, Metric]):
    """The metrics of a table by name, as the registry has them now; the core metrics of choices first."""

    def __init__(self, table: Table, *, with_accuracy: bool = False) -> None:
        self._table, self._with_accuracy = table, with_accuracy

    def _metrics(self) -> list[Metric]:
        found = [m for m in _METRICS if self._table in m.tables or (self._with_accuracy and m.name == "acc")]
        return sorted(found, key=lambda metric: metric.order)

    def __getitem__(self, name: str) -> Metric:
        for metric in self._metrics():
            if metric.name == name:
                return metric
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (metric.name for metric in self._metrics())

    def __len__(self) -> int:
        return len(self._metrics())

    def __repr__(self) -> str:
        return repr(dict(self))


class _Core(Sequence[str]):
    """Names of the metrics that a table prints where nobody names any, as the registry has them now."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def _names(self) -> list[str]:
        order = {name: metric.order for name, metric in CATALOG.items()}
        core = [metric for metric in _METRICS if self._table in metric.core]
        return [m.name for m in sorted(core, key=lambda m: order.get(m.in_place_of or "", m.order))]

    def __getitem__(self, index: Any) -> Any:
        return self._names()[index]

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return repr(self._names())


CATALOG: Mapping[str, Metric] = _Catalog("choices")
"""All scalar metrics of choices by name, the core ones first; ``acc`` is not in it: tables have the stock task's."""

COMPARED: Mapping[str, Metric] = _Catalog("choices", with_accuracy=True)
"""What is compared: accuracy, and every metric."""

GENERATION_CATALOG: Mapping[str, Metric] = _Catalog("generation")
"""Those that are defined for generated answers; ``ace`` has one class there."""

CORPUS_CATALOG: Mapping[str, Metric] = _Catalog("corpus")
"""Those of every token of a corpus, from sums over the tokens of each doc."""

CORE: Sequence[str] = _Core("choices")
"""Names of the metrics that the harness table prints by default, beside ``acc``."""

GENERATION_CORE: Sequence[str] = _Core("generation")
"""Those that the table prints for generated answers (``full_ece`` where there is a reference)."""


def define(value: Callable[..., float], kind: KindName, *, higher_is_better: bool | None, **brought: Any) -> Metric:
    """The metric whose value the function is, not registered.

    Args:
        value: Function of the two arrays of the kind, which it checks; its keyword-only options are the metric's.
        kind: What it takes.
        higher_is_better: None where the sign matters.
        **brought: What the metric brings (``stderr``, ``estimate``, ``null``, ``has_null``, as told in
            :class:`~lm_eval_calibration.metrics.definition.Definition`), and other attributes of :class:`Metric`;
            ``name`` is the function's where not given, ``tables`` the kind's.
    """
    own = {key: brought.pop(key) for key in ("stderr", "estimate", "null", "has_null") if key in brought}
    functions = Definition(value, KINDS[kind], higher_is_better, **own).public()
    attributes = {
        "name": value.__name__,
        "tables": KINDS[kind].tables,
        "takes_n_bins": "n_bins" in signature(value).parameters,
        **functions,
        **brought,
    }
    return Metric(kind=kind, higher_is_better=higher_is_better, value=value, **attributes)


def metric(kind: KindName, *, higher_is_better: bool | None, **brought: Any) -> Callable[[Function], Function]:
    """Register the metric whose value the decorated function is; takes what :func:`define` takes."""

    def decorate(value: Function) -> Function:
        register(define(value, kind, higher_is_better=higher_is_better, **brought))
        return value

    return decorate


def function_of(name: str) -> Callable[..., Any] | None:
    """The function of a registered metric by its own name, such as ``ece`` or ``ece_stderr``."""
    return _functions().get(name)


def functions() -> list[str]:
    """Names of the functions of all registered metrics."""
    return list(_functions())


def _functions() -> dict[str, Callable[..., Any]]:
    found = [f for m in _METRICS for f in (m.value, m.stderr, m.interval, m.null) if f is not None]
    return {function.__name__: function for function in found}
