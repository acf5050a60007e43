"""A metric under the name that a table shows, and the rows beside it that say how far to trust it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lm_eval_calibration.metrics import Metric

View = Callable[[Sequence[Any]], Iterable[Any]]
"""What a metric computes from: makes docs of records."""

INTERVAL = {"_low": ("interval", 0), "_high": ("interval", 1)}
NULL = {"_null": ("null", 1), "_p": ("null", 3)}
"""Suffixes of the rows of a metric's 95% interval, and of its mean and p-value were the model calibrated."""


@dataclass(frozen=True)
class Part:
    """A function that returns one number of several, such as the lower end of an interval."""

    whole: Callable[..., tuple[float, ...]]
    index: int

    def __call__(self, first: Any, second: Any, **options: Any) -> float:
        """Return the number for these arrays."""
        return float(self.whole(first, second, **options)[self.index])


class TableMetric(NamedTuple):
    """A metric under the name that the table shows.

    Attributes:
        metric: the metric.
        source: where its confidences come from, a ``ConfidenceSource``.
        view: what it computes from; None for the records as they are.
        has_stderr: whether the table shows a standard error beside it.
        instead: a row that takes its place where that one's view has docs.
    """

    metric: Metric
    source: Any
    view: View | None = None
    has_stderr: bool = True
    instead: "TableMetric | None" = None


def trust_rows(rows: Mapping[str, TableMetric]) -> dict[str, TableMetric]:
    """Return, by name, a row for each number of the interval and of the null of the metrics that have one."""
    found = {}
    for suffix, (function, index) in (INTERVAL | NULL).items():
        for name, row in rows.items():
            if (whole := getattr(row.metric, function)) is not None:
                metric = replace(row.metric, name=name + suffix, value=Part(whole, index), higher_is_better=None)
                found[name + suffix] = row._replace(metric=metric, has_stderr=False)
    return found
