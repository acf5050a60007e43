"""Our numbers of tasks and groups, computed from records where the harness aggregates groups.

What a calibrated task returns of a doc is an ordinary dict, which the harness logs as it is. Of its keys the record
and the references to it hold no number: :class:`Logged` brings them, of all ranks, to where the run's numbers are
completed. A group's metric is there the metric of all its docs, not the mean of its tasks' metrics.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from lm_eval.config.group import AggMetricConfig

from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.pools import NO_FILTER, NO_STDERR, CalibratedTask, DocPool, Statistic
from lm_eval_calibration.harness.run import current_run
from lm_eval_calibration.records import RECORD_KEY, Record


class Logged(NamedTuple):
    """What a task's docs have under a key of the log that is no number to aggregate."""

    task: CalibratedTask
    items: list[Any]


class TaskDocs(NamedTuple):
    """The docs of a task under one of its filters, and the numbers that they have."""

    task: CalibratedTask
    pool: DocPool
    statistics: dict[str, Statistic]


Location = tuple[str, str]
"""A task and one of its filters, by name."""

Rows = dict[str, dict[str, Any]]
"""The harness's numbers: by name of a task or group, then by ``metric,filter``."""


def complete_tasks(rows: Rows) -> dict[Location, TaskDocs]:
    """Put the numbers of calibrated tasks into their rows; return their docs by task and filter."""
    docs = {}
    for name, row in rows.items():
        logged = {key: value for key, value in row.items() if isinstance(value, Logged)}
        for key, (task, items) in logged.items():
            metric, _, filter_name = key.partition(",")
            if metric == RECORD_KEY and isinstance(items[0], Mapping):
                pool = DocPool(map(Record.from_dict, items))
                found = TaskDocs(task, pool, task.statistics(pool.records))
                docs[name, filter_name] = found
                _complete_row(row, filter_name, found)
        for key in logged:
            if isinstance(row[key], Logged):
                del row[key], row[_stderr_key(key)]
    return docs


def _complete_row(row: dict[str, Any], filter_name: str, docs: TaskDocs) -> None:
    for metric, statistic in docs.statistics.items():
        key = f"{metric},{filter_name}"
        row[key] = statistic.value(docs.pool)
        if statistic.has_stderr and current_run().has_stderrs and len(docs.pool.records) > 1:
            row[_stderr_key(key)] = statistic.stderr(docs.pool)
        elif statistic.has_stderr or filter_name != NO_FILTER:
            row[_stderr_key(key)] = NO_STDERR
        else:
            row.pop(_stderr_key(key), None)


def rows_of_groups(rows: Rows, tasks: Mapping[str, CalibratedTask]) -> Rows:
    """Return the rows with all our numbers under one filter's name.

    Generation tasks call their filters as they like, and a group aggregates what stands under one name.
    """
    renamed = {}
    for name, row in rows.items():
        keys: dict[str, str] = {}
        if name in tasks and (scored_filter := tasks[name].scored_filter) != NO_FILTER:
            names = [key for metric in tasks[name].requested_metrics for key in (metric, f"{metric}_stderr")]
            keys = {f"{key},{scored_filter}": f"{key},{NO_FILTER}" for key in names}
        hidden = keys.values()  # another filter of that very name
        renamed[name] = {keys.get(key, key): value for key, value in row.items() if key not in hidden}
    return renamed


def metrics_of_group(name: str, listed: list[AggMetricConfig], tasks: list[CalibratedTask], rows: Rows) -> list[Any]:
    """Return a group's metrics: of those listed and those requested beside them, what all its calibrated tasks have.

    A group's YAML names its metrics, but the options of its tasks may ask for more, and a backend without token
    distributions gives no ``full_ece``.
    """
    have = {task.task_name: {key.split(",")[0] for key in rows.get(task.task_name, ())} for task in tasks}
    names = [entry.metric for entry in listed]
    requested = dict.fromkeys(metric for task in tasks for metric in task.requested_metrics if metric not in names)
    optional = {metric for task in tasks for metric in task.optional_metrics}
    kept = []
    for entry in [*listed, *(AggMetricConfig(metric, weight_by_size=listed[0].weight_by_size) for metric in requested)]:
        without = [task for task, metrics in have.items() if entry.metric not in metrics]
        if entry.metric not in optional or not without:
            kept.append(entry)
        elif len(without) < len(tasks):
            logger.warning("%s: %s is left out: not all of its tasks have it (%s, ...)", name, entry.metric, without[0])
    return kept


class GroupPools:
    """Computes the numbers of groups from all their docs.

    Args:
        docs: of calibrated tasks, by task and filter.
    """

    def __init__(self, docs: Mapping[Location, TaskDocs]) -> None:
        self._docs = {
            (name, NO_FILTER if filter_name == found.task.scored_filter else filter_name): found
            for (name, filter_name), found in docs.items()
        }
        self._pools: dict[tuple[Location, ...], DocPool] = {}

    def complete(self, group: Any, row: dict[str, Any], rows: Rows) -> None:
        """Put the numbers of the docs of a group into its row, where the harness has put means of its tasks' numbers.

        Means stay where the group asks for unweighted ones, and where a task has no records.
        """
        names = dict.fromkeys(task.task_name for task in group.get_all_tasks())
        for entry in group.aggregate_metric_list or ():
            for key in [key for key in row if key.startswith(f"{entry.metric},")]:
                filter_name = key.partition(",")[2]
                locations = tuple((name, filter_name) for name in names if key in rows.get(name, ()))
                statistics = [
                    self._docs[location].statistics.get(entry.metric)
                    for location in locations
                    if location in self._docs
                ]
                found = [statistic for statistic in statistics if statistic is not None]
                if found and not found[0].has_stderr and filter_name == NO_FILTER:
                    row.pop(_stderr_key(key), None)
                if found and len(found) == len(locations) and entry.weight_by_size:
                    self._pool(entry.metric, key, row, found, locations)

    def _pool(
        self, metric: str, key: str, row: dict[str, Any], statistics: list[Statistic], locations: tuple[Location, ...]
    ) -> None:
        first = statistics[0]
        has_stderr = row.get(_stderr_key(key), NO_STDERR) != NO_STDERR
        if other := next((statistic for statistic in statistics if statistic != first), None):
            logger.warning(_reason_not_pooled(metric, first, other))
            row[key] = float("nan")
            if has_stderr:
                row[_stderr_key(key)] = float("nan")
            return
        if locations not in self._pools:
            self._pools[locations] = DocPool(
                record for location in locations for record in self._docs[location].pool.records
            )
        row[key] = first.value(self._pools[locations])
        if has_stderr:
            row[_stderr_key(key)] = first.stderr(self._pools[locations])


def _reason_not_pooled(metric: str, first: Statistic, other: Statistic) -> str:
    if first.n_bins == other.n_bins:
        return f"a group mixes docs of different kinds: its {metric} is undefined"
    return (
        f"a group mixes tasks with n_bins {first.n_bins} and {other.n_bins}: its {metric} is undefined. Give its tasks "
        "equal n_bins"
    )


def _stderr_key(key: str) -> str:
    metric, _, filter_name = key.partition(",")
    return f"{metric}_stderr,{filter_name}"


def complete(results: Any, aggregate_groups: Any) -> Any:
    """Complete the numbers of the run's tasks and groups.

    Args:
        results: the harness's ``EvalAcc`` of the tasks.
        aggregate_groups: the harness's function, which adds the groups.
    """
    docs = complete_tasks(results.metrics)
    tasks = {name: found.task for (name, _), found in docs.items()}
    rows = rows_of_groups(results.metrics, tasks)
    groups = _all_groups(results.groups.values())
    for group in groups.values():
        ours = [tasks[task.task_name] for task in group.get_all_tasks() if task.task_name in tasks]
        if ours and group.aggregate_metric_list:
            group.aggregate_metric_list = metrics_of_group(group.name, group.aggregate_metric_list, ours, rows)
    aggregate_groups(replace(results, metrics=rows))  # what it sets beside metrics, both have in common
    pools = GroupPools(docs)
    for name, group in groups.items():
        pools.complete(group, rows[name], rows)
    results.metrics |= {name: row for name, row in rows.items() if name in groups}
    return results


def _all_groups(groups: Iterable[Any]) -> dict[str, Any]:
    return {inner.name: inner for group in groups for inner in (group, *group.get_all_groups())}
