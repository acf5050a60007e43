"""From the docs' records to a metric's value and standard error."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_calibration.columns import Columns, Doc
from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks.notices import say_once
from lm_eval_calibration.tasks.pooling import PooledStderr, PooledValue


@dataclass(frozen=True)
class Aggregation:
    """The harness's aggregation of one metric: records in, value out; groups pool it over all their docs."""

    metric: Metric
    n_bins: int = 10
    view: Callable[[Record], Doc] | None = None  # how the metric sees a record; None: as it is

    def __call__(self, records: Sequence[Record]) -> PooledValue:
        """Return the metric over the records, ``nan`` where it is undefined."""
        return PooledValue(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the metric as a plain float."""
        _say_left_out(records)
        return self._compute(self.metric.value, records)

    def _compute(self, function: Any, records: Sequence[Record]) -> float:
        options = {"n_bins": self.n_bins} if self.metric.takes_n_bins else {}
        arrays = _columns(records, self.view, self.n_bins).arrays(self.metric.kind)
        if not len(arrays[1]):
            say_once(f"{_tasks(records)}: {self.metric.name} is undefined: {_why_none(records, self.metric.kind)}")
            return float("nan")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(function(*arrays, **options))
        for warning in caught:
            if not issubclass(warning.category, UserWarning):  # not a metric's reason but somebody's bug
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            else:
                say_once(f"{_tasks(records)}: {warning.message}")
        return value

    def not_pooled(self, other: Any) -> float:
        """Say that tasks computed otherwise can't be pooled with these, and return nan."""
        bins = f"n_bins {self.n_bins} and {other.n_bins}"
        say_once(f"a group mixes tasks with {bins}: its {self.metric.name} is undefined. Give its tasks equal n_bins")
        return float("nan")


@dataclass(frozen=True)
class StderrAggregation(Aggregation):
    """The same for the metric's standard error; "N/A" for a single doc, as the harness has it."""

    def __call__(self, records: Sequence[Record]) -> Any:
        """Return the standard error over the records."""
        if len(records) < 2:
            return "N/A"
        return PooledStderr(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the standard error as a plain float."""
        return self._compute(self.metric.stderr, records)


_KEPT: dict[Any, tuple[Columns, Sequence[Record]]] = {}


def _columns(records: Sequence[Record], view: Callable[[Record], Doc] | None, n_bins: int) -> Columns:
    """Return the records' columns; the last are kept, since a table asks for one metric of the same docs after another.

    The records are kept with them: an id is a record's own only while it lives.
    """
    key = view, n_bins, tuple(map(id, records))
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = Columns.of(records if view is None else map(view, records), n_bins), tuple(records)
    return _KEPT[key][0]


def _why_none(records: Sequence[Record], kind: str) -> str:
    if any(record.generation is None for record in records):
        return "no doc has a sound gold label"
    if kind != "top_label":
        return "no doc has a token of a reference answer"
    if all(record.confidence is None for record in records):
        return "no doc has a confidence"
    return "no doc has an answer that is right or wrong"


def _say_left_out(records: Sequence[Record]) -> None:
    broken = [record for record in records if record.generation is None and record.gold is None]
    if broken:
        say_once(
            f"{_tasks(records)}: {len(broken)} of {len(records)} docs have a gold label outside their choices "
            f"({_docs(broken)}); they count in acc and in no calibration metric"
        )
    empty = [record for record in records if record.generation and record.generation.token_log_probs == ()]
    if empty:
        say_once(
            f"{_tasks(records)}: {len(empty)} of {len(records)} generated answers are empty ({_docs(empty)}) and have "
            "no confidence; they count in acc and in no metric of confidence"
        )


def _docs(records: Sequence[Record]) -> str:
    return f"docs {', '.join(str(record.doc_id) for record in records[:10])}{', ...' if len(records) > 10 else ''}"


def _tasks(records: Sequence[Record]) -> str:
    names = sorted({record.task for record in records})
    return names[0] if len(names) == 1 else f"{len(names)} tasks ({names[0]}, ...)"
