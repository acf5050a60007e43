"""Every metric of every group and task of a run, with all that belongs beside it, as export and evidence write it."""

from collections.abc import Iterator
from typing import NamedTuple

from lm_eval_calibration.metrics import Null
from lm_eval_calibration.reports.columns import ACC, columns
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.scopes import scopes


class Value(NamedTuple):
    """A metric of some docs.

    Attributes:
        scope: name of the task or group; "all" for the docs of all tasks.
        tasks: whose docs these are.
        metric: its name.
        measured: value, standard error, interval, number of docs.
        null: what a calibrated model would show; None where the metric has no such thing.
    """

    scope: str
    tasks: tuple[str, ...]
    metric: str
    measured: Measured
    null: Null | None


def values(run: Run, *, nulls: bool = True) -> Iterator[Value]:
    """Yield all metrics of each group and task.

    Args:
        run: the run.
        nulls: whether to simulate what a calibrated model would show, which takes most of the time.
    """
    for scope, tasks in scopes(run).items():
        for metric, measured in run.metrics(tasks, names=columns("all")).items():
            null = None if metric == ACC or not nulls else run.null(metric, tasks)
            yield Value(scope, tasks, metric, measured, null)
