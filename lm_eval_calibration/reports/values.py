"""Every metric of every group and task of a run, with all that belongs beside it, as export and evidence write it."""

from collections.abc import Iterator
from typing import NamedTuple

from lm_eval_calibration.metrics import Null
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.columns import ACC, columns
from lm_eval_calibration.results.grouping import with_whole


class Value(NamedTuple):
    """A metric of some docs.

    ``scope`` names the task or group, "all" the docs of all tasks. ``null`` is what a calibrated model would show;
    None where the metric has no such thing.
    """

    scope: str
    tasks: tuple[str, ...]
    metric: str
    measured: Measured
    null: Null | None


def values(run: Run, *, nulls: bool = True) -> Iterator[Value]:
    """Yield all metrics of each group and task.

    Nulls are simulated, which takes most of the time, unless ``nulls`` is False.
    """
    known: dict[tuple[str, ...], list[Value]] = {}  # groups within groups are often the same tasks
    for scope, tasks in with_whole(run.tasks, run.groups).items():
        if tasks in known:
            yield from (value._replace(scope=scope) for value in known[tasks])
            continue
        known[tasks] = []
        for metric, measured in run.metrics(tasks, names=columns("all")).items():
            null = None if metric == ACC or not nulls else run.null(metric, tasks)
            value = Value(scope, tasks, metric, measured, null)
            known[tasks].append(value)
            yield value
