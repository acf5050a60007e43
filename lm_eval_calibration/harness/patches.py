"""The one place where the harness is changed. Each patch says why; a test fails when upstream makes it needless.

1. Groups in groups: the harness hands arrows and n-shot from tasks to groups parents first, so the top row of
   nested groups gets neither. Ours hands the groups over children first.
2. Asked metrics: a group's YAML names its metrics, but ``--metadata`` may ask for more, and a backend without token
   distributions gives no ``full_ece``. A group that holds calibrated tasks adds what was asked for and leaves out
   what not all of them have. Our ``<metric>_stderr`` items leave a meaningless ``<metric>_stderr_stderr``, which is
   dropped on the way, and rows that have no standard error (the ends of an interval) lose the harness's "N/A".
   The run then has all its numbers: what is to be said of many tasks is said.
3. Filters: generation tasks call their filters as they like, and a group pools what stands under one name. Ours stand
   under "none" for the groups.

(What several ranks need, on the backend's object of a run and only there, is in ``ranks``.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lm_eval import evaluator_utils
from lm_eval.config.group import AggMetricConfig

from lm_eval_calibration.harness.log import say_collected, say_once
from lm_eval_calibration.tasks.base import NO_FILTER, BaseTask
from lm_eval_calibration.tasks.bounds import BOUNDS
from lm_eval_calibration.tasks.first_token import UNASSIGNED_MASS
from lm_eval_calibration.tasks.views import means, rows


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
                metrics.pop(key)
        _drop_empty_stderrs(results)
        for group in results.groups.values():
            tasks = [task for task in group.get_all_tasks() if isinstance(task, BaseTask)]
            if tasks and group.aggregate_metric_list:
                group.aggregate_metric_list = _metric_list(
                    group.name, group.aggregate_metric_list, tasks, results.metrics
                )
        with _under_no_filter(results):
            aggregated = aggregate_groups(results)
        _drop_empty_stderrs(aggregated)
        say_collected()
        return aggregated

    return patched


def _drop_empty_stderrs(results: Any) -> None:
    for metrics in results.metrics.values():
        for name, row in rows("choices").items():
            if not row.has_stderr:
                metrics.pop(f"{name}_stderr,none", None)


@contextmanager
def _under_no_filter(results: Any) -> Iterator[None]:
    """Let groups find the numbers of generation tasks, which stand under the name of the filter that is judged.

    Groups pool what stands under equal names, and tasks call their filters as they like.
    """
    tasks = {id(task): task for group in results.groups.values() for task in group.get_all_tasks()}
    moved = []
    for task in tasks.values():
        if isinstance(task, BaseTask) and task.judged_filter != NO_FILTER:
            for name in task.requested_metrics:
                for key in (name, f"{name}_stderr"):
                    moved.append((results.metrics[task.task_name], f"{key},{task.judged_filter}", f"{key},{NO_FILTER}"))
    for metrics, key, other in moved:
        if key in metrics:
            metrics[other] = metrics.pop(key)
    try:
        yield
    finally:
        for metrics, key, other in moved:
            if other in metrics:
                metrics[key] = metrics.pop(other)


def _metric_list(
    group: str, listed: list[AggMetricConfig], tasks: list[BaseTask], results: dict[str, dict[str, Any]]
) -> list[AggMetricConfig]:
    """Return a group's metrics: of those listed and those asked for beside them, what all its calibrated tasks have."""
    names = [entry.metric for entry in listed]
    have = {task.task_name: {key.split(",")[0] for key in results.get(task.task_name, ())} for task in tasks}
    asked = dict.fromkeys(name for task in tasks for name in task.requested_metrics if name not in names)
    entries = [*listed, *(AggMetricConfig(name, weight_by_size=listed[0].weight_by_size) for name in asked)]
    kept = []
    for entry in entries:
        without = [task for task, metrics in have.items() if entry.metric not in metrics]
        if entry.metric not in {*rows("choices"), *means("choices"), *BOUNDS, UNASSIGNED_MASS} or not without:
            kept.append(entry)
        elif len(without) < len(tasks):
            say_once(f"{group}: {entry.metric} is left out, since not all of its tasks have it ({without[0]}, ...)")
    return kept
