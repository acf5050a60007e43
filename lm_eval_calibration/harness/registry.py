"""Our metrics in the harness's registries: a name that the harness owns already stays the harness's."""

from collections.abc import Callable
from typing import Any

# The registries fill lazily, only while empty: the harness's own entries must come first.
import lm_eval.api.metrics
import lm_eval.models  # noqa: F401
from lm_eval.api.registry import aggregation_registry, higher_is_better_registry, metric_agg_registry, metric_registry


def passthrough(name: str) -> Callable[[Any], Any]:
    """Return the function of a doc that the harness wants of a metric which only all docs have."""

    def metric(items: Any) -> Any:
        """Return the items: the metric is computed over all docs, by its aggregation."""
        return items

    metric.__name__ = metric.__qualname__ = name
    return metric


def register(
    name: str, metric: Callable[[Any], Any], aggregation: Callable[[Any], Any], higher_is_better: bool | None
) -> None:
    """Put a metric with its aggregation and direction where nobody else is registered under its name."""
    for registry, target in (
        (aggregation_registry, aggregation),
        (metric_registry, metric),
        (metric_agg_registry, aggregation),
        (higher_is_better_registry, higher_is_better),
    ):
        if target is not None and name not in registry:
            registry.register(name, target=target)
