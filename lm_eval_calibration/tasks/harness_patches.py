"""The one place where the harness is changed. Each patch says why; a test fails when upstream makes it needless.

1. Groups in groups: the harness hands arrows and n-shot from tasks to groups parents first, so the top row of
   nested groups gets neither. Ours hands the groups over children first.
2. Extended metrics: a group's YAML names its metrics, but ``--metadata`` may ask for more, and a backend without
   token distributions gives no ``full_ece``. Groups that hold calibrated tasks aggregate what their tasks have.
   Our ``<metric>_stderr`` items leave a meaningless ``<metric>_stderr_stderr``, which is dropped on the way.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from lm_eval import evaluator_utils
from lm_eval.config.group import AggMetricConfig

from lm_eval_calibration.metrics import CATALOG


def apply() -> None:
    """Apply the patches, once."""
    for name in ("_propagate_higher_is_better", "_propagate_num_fewshot"):
        _replace(name, _children_first)
    _replace("aggregate_groups", _metrics_of_the_tasks)


def _replace(name: str, patch: Callable[[Any], Any]) -> None:
    stock = getattr(evaluator_utils, name, None)  # gone upstream: run without the patch, its test says so
    if stock is not None and not hasattr(stock, "__wrapped__"):
        setattr(evaluator_utils, name, patch(stock))


def _children_first(propagate: Callable[..., None]) -> Callable[..., None]:
    @wraps(propagate)
    def patched(all_groups: Any, values: Any) -> None:
        propagate(list(reversed(all_groups)), values)  # the list is in pre-order: parents before their children

    return patched


def _metrics_of_the_tasks(aggregate_groups: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(aggregate_groups)
    def patched(results: Any) -> Any:
        for metrics in results.metrics.values():
            for key in [key for key in metrics if "_stderr_stderr," in key]:
                del metrics[key]
        for group in results.groups.values():
            listed = group.aggregate_metric_list or []
            if any(entry.metric in CATALOG for entry in listed):
                present = _metrics_in(group, results.metrics)
                group.aggregate_metric_list = [
                    *(entry for entry in listed if entry.metric not in CATALOG or entry.metric in present),
                    *(AggMetricConfig(name) for name in present if name not in [e.metric for e in listed]),
                ]
        return aggregate_groups(results)

    return patched


def _metrics_in(group: Any, results: dict[str, dict[str, Any]]) -> list[str]:
    """Return our metrics that some task of the group has, in the catalog's order."""
    keys = {key.split(",")[0] for task in group.get_all_tasks() for key in results.get(task.task_name, ())}
    return [name for name in CATALOG if name in keys]
