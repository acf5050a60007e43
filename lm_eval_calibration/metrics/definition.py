"""From what a metric brings to what every metric has: standard error, estimate, interval and null.

A metric brings functions of *checked* arrays. The functions made here take the arrays unchecked, refuse bad ones and
bad options, and simulate what the metric does not bring.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

import numpy as np

from lm_eval_calibration.metrics.kinds import Kind
from lm_eval_calibration.metrics.uncertainty.clusters import check_cluster, independent_sums, too_few_clusters
from lm_eval_calibration.metrics.uncertainty.intervals import (
    Estimate,
    check_level,
    percentile_estimate,
    undefined_estimate,
)
from lm_eval_calibration.metrics.uncertainty.kept import kept
from lm_eval_calibration.metrics.uncertainty.nulls import Null, null_beside, null_of_draws, redrawn
from lm_eval_calibration.metrics.uncertainty.resampling import bootstrap_stderr, rows
from lm_eval_calibration.metrics.uncertainty.shares import Interval
from lm_eval_calibration.metrics.validation import check_n_bins, check_positive_integer, undefined

_OPTION_CHECKS: dict[str, Callable[[Any], Any]] = {
    "n_bins": check_n_bins,
    "level": check_level,
    "draws": partial(check_positive_integer, "draws", at_least=2),
}

_STANDARD_OPTIONS = {
    name: Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=type(default))
    for name, default in (("draws", 1000), ("level", 0.95), ("seed", 0))
} | {"cluster": Parameter("cluster", Parameter.KEYWORD_ONLY, default=None, annotation=Any)}


@dataclass(frozen=True)
class Definition:
    """What a metric brings.

    Attributes:
        value: The metric, a function of the two unchecked arrays of its kind.
        kind: Of these arrays.
        higher_is_better: None where the sign matters.
        stderr: Its standard error, of the checked arrays and those options that it takes; else a bootstrap.
        estimate: Its estimate with an interval, likewise; else that of a bootstrap.
        null: [draws] its values under calibration, likewise; else it is computed on redrawn outcomes.
        has_null: Whether it depends on calibration.
    """

    value: Callable[..., float]
    kind: Kind
    higher_is_better: bool | None
    stderr: Callable[..., float] | None = None
    estimate: Callable[..., Estimate] | None = None
    null: Callable[..., Any] | None = None
    has_null: bool = True

    def public(self) -> dict[str, Any]:
        """Standard error, estimate, interval and null as functions of the two unchecked arrays, by their names."""
        drawn = ("draws", "seed") if self.stderr is None else _keywords(self.stderr) & {"draws", "seed"}
        null = self.null is not None or self.kind.redraw is not None
        return {
            "stderr": self._function("stderr", "Standard error", self._stderr, {*drawn, "cluster"}),
            "estimate": self._function("estimate", "Estimate", self._estimate, ("level", "seed", "cluster")),
            "interval": self._function(
                "interval", "Confidence interval (low, high)", self._interval, ("level", "seed", "cluster")
            ),
            "null": self._function("null", "Null", self._null, ("seed", "cluster")) if null and self.has_null else None,
        }

    def _function(
        self, suffix: str, what: str, body: Callable[..., Any], standard: Iterable[str]
    ) -> Callable[..., Any]:
        """The method as a function with the name, the signature and the documentation of the metric's own."""
        arrays = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in self.kind.arrays]
        own = [p for p in signature(self.value).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "seed"]
        whole = Signature([*arrays, *own, *(p for name, p in _STANDARD_OPTIONS.items() if name in standard)])

        def function(*args: Any, **options: Any) -> Any:
            bound = whole.bind(*args, **options)
            bound.apply_defaults()
            return body(*bound.args, **bound.kwargs)

        name = self.value.__name__
        function.__name__ = function.__qualname__ = f"{name}_{suffix}"
        function.__module__ = self.value.__module__
        function.__doc__ = f"{what} of :func:`{name}`; takes its arrays and options.{_DOC[suffix]}"
        function.__signature__ = whole  # type: ignore[attr-defined]
        return function

    def _stderr(self, first: Any, second: Any, **options: Any) -> float:
        arrays = self._checked(first, second, options)
        if reason := too_few_clusters(options.get("cluster")):
            return undefined(reason)
        if self.stderr is not None and _allows_for(self.stderr, options):
            return float(self.stderr(*arrays, **_accepted(self.stderr, options)))
        _, reason = value_and_reason(self.value, first, second, **_accepted(self.value, options))
        if reason is not None:
            return undefined(reason)
        how = {name: options[name] for name in ("draws", "seed", "cluster") if name in options}
        return bootstrap_stderr(self._statistic(options), rows(first), rows(second), **how)

    def _estimate(self, first: Any, second: Any, **options: Any) -> Estimate:
        return kept(self._computed, self, first, second, options)

    def _computed(self, first: Any, second: Any, **options: Any) -> Estimate:
        arrays = self._checked(first, second, options)
        if reason := too_few_clusters(options["cluster"]):
            return undefined_estimate(len(second), reason)
        if self.estimate is not None and _allows_for(self.estimate, options):
            found = self.estimate(*arrays, **_accepted(self.estimate, options))
            if (cluster := options["cluster"]) is None:
                return found
            return found._replace(influence=independent_sums(found.influence, cluster))
        _, reason = value_and_reason(self.value, first, second, **_accepted(self.value, options))
        if reason is not None:
            return undefined_estimate(len(second), reason)
        how = {name: options[name] for name in ("level", "seed", "cluster")}
        return percentile_estimate(self._statistic(options), rows(first), rows(second), **how)

    def _interval(self, first: Any, second: Any, **options: Any) -> Interval:
        estimate = self._estimate(first, second, **options)
        return estimate.low, estimate.high

    def _null(self, first: Any, second: Any, *, seed: int, **options: Any) -> Null:
        arrays = self._checked(first, second, options)
        value, reason = value_and_reason(self.value, first, second, **_accepted(self.value, options))
        if reason is not None:
            nan = undefined(reason)
            return Null(nan, nan, nan, nan)
        if reason := too_few_clusters(options["cluster"]):
            nan = undefined(reason)
            return Null(value, nan, nan, nan)
        if self.null is not None and _allows_for(self.null, options):
            own = partial(self.null, *arrays, **_accepted(self.null, options))
            return null_of_draws(value, lambda other: own(seed=other), seed, self.higher_is_better)
        if options["cluster"] is not None:
            nan = undefined(f"no null of {self.value.__name__} is known for docs in clusters")
            return Null(value, nan, nan, nan)
        redraw: Callable[..., tuple[Any, Any]] = self.kind.redraw  # type: ignore[assignment]  # else no null
        return null_beside(value, redrawn(redraw, self._statistic(options), *arrays, seed=seed), self.higher_is_better)

    def _checked(self, first: Any, second: Any, options: dict[str, Any]) -> tuple[Any, ...]:
        """The checked arrays; replaces options by checked ones."""
        arrays = self.kind.check(first, second)
        options |= {name: check(options[name]) for name, check in _OPTION_CHECKS.items() if name in options}
        if options.get("cluster") is not None:
            options["cluster"] = check_cluster(options["cluster"], len(second))
        return arrays

    def _statistic(self, options: dict[str, Any]) -> Callable[..., float]:
        """The value as a function of the arrays alone, silent where it is undefined."""
        own = _accepted(self.value, options)

        def statistic(first: Any, second: Any) -> float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return float(self.value(first, second, **own))

        return statistic


_DOC = {
    "stderr": """

    Nan, with UndefinedMetricWarning, where the metric is undefined and for one doc. A bootstrap over docs where it
    takes ``draws``, the number of resamples, and ``seed``, of ``np.random.default_rng``; docs must then come in a fixed
    order, else one seed gives another number. Raises ValueError for bad input, naming the row and the value.
    """,
    "estimate": """

    Its interval holds the population's value with probability ``level``. Raises ValueError for bad input.
    """,
    "interval": """

    Holds the population's value with probability ``level``; docs are independent, and what belongs to one doc stays
    together. Of a binned error that is the population's error at the same bins: the value of these docs is biased
    upward, so it can be near the upper end, and a lower end of 0 says that these docs do not refute calibration. Nan
    for both, with UndefinedMetricWarning, where the metric is undefined and for one doc. ``seed``, of
    ``np.random.default_rng``, matters where it simulates. Raises ValueError for bad input, naming row and value.
    """,
    "null": """

    What a perfectly calibrated model would show at these forecasts: value, mean and 95% quantile under calibration,
    p-value; the outcomes matter for value and p-value only. ``seed`` is of ``np.random.default_rng``. Nan, with
    UndefinedMetricWarning, where the metric is undefined. Raises ValueError for bad input, naming row and value.
    """,
}


def value_and_reason(value: Callable[..., float], first: Any, second: Any, **options: Any) -> tuple[float, str | None]:
    """A metric's value, silently, and where it is nan the reason of which it warns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = float(value(first, second, **options))
    if not np.isnan(found):
        return found, None
    return found, "; ".join(str(warning.message) for warning in caught) or "the metric is undefined on these docs"


def _allows_for(function: Callable[..., Any], options: dict[str, Any]) -> bool:
    """Whether a function that a metric brings takes clusters, where docs are in clusters."""
    return options.get("cluster") is None or "cluster" in _accepted(function, options)


def _keywords(function: Callable[..., Any]) -> set[str]:
    return {name for name, p in signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


def _accepted(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those options that a function takes; all of them where it takes any."""
    parameters = signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return options
    return {name: option for name, option in options.items() if name in parameters}
