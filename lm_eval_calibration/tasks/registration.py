"""Our metrics and aggregations in the harness's registries, under their own names.

Imported by every calibrated task, and by the entry points (``lm_eval.metrics``, ``lm_eval.aggregations``) that the
next release of the harness discovers. A name that the harness owns already stays the harness's: our tasks compute
with our own aggregation objects either way.
"""

from collections.abc import Callable
from typing import Any

# The registries fill lazily, only while empty: the harness's own entries must come first.
import lm_eval.api.metrics
import lm_eval.models  # noqa: F401
from lm_eval.api.registry import (
    aggregation_registry,
    get_aggregation,
    higher_is_better_registry,
    metric_agg_registry,
    metric_registry,
)

from lm_eval_calibration.tasks.aggregation import Aggregation
from lm_eval_calibration.tasks.corpus_metrics import CORPUS_METRICS, CorpusAggregation
from lm_eval_calibration.tasks.generation_metrics import TOKEN_ACCURACY, TokenAccuracy
from lm_eval_calibration.tasks.views import means, rows


def _passthrough(name: str) -> Callable[[Any], Any]:
    def metric(items: Any) -> Any:
        """Return the items: the metric is computed over all docs, by its aggregation."""
        return items

    metric.__name__ = metric.__qualname__ = name
    return metric


METRICS: dict[str, Callable[[Any], Any]] = {}
AGGREGATIONS: dict[str, Any] = {}
"""Ours by name, also those whose name the harness owns."""


def _definitions() -> dict[str, tuple[Any, bool | None]]:
    """Return aggregation and direction of every metric and row that is defined now.

    Rows of generated answers that have the names of rows of choices give way: tasks have aggregations of their own.
    """
    found: dict[str, tuple[Any, bool | None]] = {
        name: (CorpusAggregation(metric), metric.higher_is_better) for name, metric in CORPUS_METRICS.items()
    }
    for name, row in (rows("generation") | rows("choices")).items():
        found[name] = (Aggregation(row.metric, view=row.view), row.metric.higher_is_better)
    found |= {name: (get_aggregation("mean"), better) for name, better in means().items()}
    return found | {TOKEN_ACCURACY: (TokenAccuracy(), True)}


def register() -> None:
    """Put what is new with its aggregation and direction where nobody else is registered under its name."""
    for name, (aggregation, higher_is_better) in _definitions().items():
        METRICS.setdefault(name, _passthrough(name))
        AGGREGATIONS.setdefault(name, aggregation)
        for registry, target in (
            (aggregation_registry, AGGREGATIONS[name]),
            (metric_registry, METRICS[name]),
            (metric_agg_registry, AGGREGATIONS[name]),
            (higher_is_better_registry, higher_is_better),
        ):
            if target is not None and name not in registry:
                registry.register(name, target=target)


def __getattr__(name: str) -> Any:
    """Resolve the entry points ``registration:<metric>`` and ``registration:<metric>_aggregation``."""
    if name in METRICS:
        return METRICS[name]
    if name.removesuffix("_aggregation") in AGGREGATIONS:
        return AGGREGATIONS[name.removesuffix("_aggregation")]
    raise AttributeError(f"no metric named {name!r}")


register()
