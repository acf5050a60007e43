"""The records of a task or group, and the numbers of a table that are computed from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

from lm_eval_calibration.harness.log import label
from lm_eval_calibration.records import Columns, Doc, Record

NO_FILTER = "none"
"""What the harness calls the filter of a task that has none."""

NO_STDERR = "N/A"
"""What the harness shows in place of a standard error."""


class DocPool:
    """The records of a task or group, and what several metrics of its table compute from them.

    Attributes:
        records: one of each doc: a task may stand in two subgroups of a group.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        unique = {id(r) if r.doc_id is None else (r.task, r.doc_id): r for r in records}
        self.records = tuple(unique.values())
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return what a function computes, called only for the first of equal keys."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def columns(self, view: Callable[[Sequence[Record]], Iterable[Doc]] | None, n_bins: int) -> Columns:
        """Return the records as columns, seen by a view (None: as they are)."""
        columns: Columns = self.once(
            ("columns", view, n_bins), lambda: Columns.of(view(self.records) if view else self.records, n_bins)
        )
        return columns

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks whose docs these are."""
        return sorted({record.task for record in self.records})

    @property
    def label(self) -> str:
        """What a line of the log calls them."""
        return label(self.tasks)


class Statistic(ABC):
    """A number of the table with its standard error; equal ones compute the same.

    Attributes:
        n_bins: of the probabilities; 0 where there are none.
        has_stderr: whether the table has room for a standard error.
    """

    n_bins: int = 0
    has_stderr: bool = True

    @abstractmethod
    def value(self, pool: DocPool) -> float:
        """Return the number, ``nan`` where it is undefined."""

    @abstractmethod
    def stderr(self, pool: DocPool) -> float | str:
        """Return its standard error, ``nan`` where it is undefined, "N/A" where there is none."""

    def __call__(self, records: Iterable[Record]) -> float:
        """Return the number of these records: the harness registers aggregations of items."""
        return self.value(DocPool(records))


class CalibratedTask(Protocol):
    """What the harness's aggregation needs of a calibrated task.

    Attributes:
        task_name: its name.
        scored_filter: the filter under which its numbers stand.
    """

    task_name: str
    scored_filter: str

    @property
    def requested_metrics(self) -> Iterable[str]:
        """Names of the metrics that its options add, which a group's file can't know."""

    @property
    def optional_metrics(self) -> Iterable[str]:
        """Names of the metrics that a group shows only if all its calibrated tasks have them."""

    def statistics(self, records: Sequence[Record]) -> dict[str, Statistic]:
        """Return what can be computed from the run's records, those of all ranks, by name."""
