"""From the docs' records to a metric's value and standard error."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import say_of, say_once
from lm_eval_calibration.harness.pooling import PooledStderr, PooledValue
from lm_eval_calibration.metrics import CATALOG, Metric
from lm_eval_calibration.records.columns import Columns
from lm_eval_calibration.records.record import Record
from lm_eval_calibration.tasks.confidences.registry import sources
from lm_eval_calibration.tasks.confidences.table_rows import Part, View

_TOO_FEW = (
    "too few docs to tell the model from a calibrated one by ece, or ece is mostly noise; the larger a group of tasks, "
    "the more its ece says"
)


@dataclass(frozen=True)
class Aggregation:
    """The harness's aggregation of one metric: records in, value out; groups pool it over all their docs."""

    metric: Metric
    n_bins: int = 10
    view: View | None = None  # how the metric sees the records; None: as they are

    def __call__(self, records: Sequence[Record]) -> PooledValue:
        """Return the metric over the records, ``nan`` where it is undefined."""
        return PooledValue(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the metric as a plain float."""
        _say_left_out(records)
        value = self._compute(self.metric.value, records)
        if self.metric is CATALOG["ece"] and not math.isnan(value):
            self._say_too_few(records)
        return value

    def _say_too_few(self, records: Sequence[Record]) -> None:
        """Say where there are too few docs to tell the model from a calibrated one."""
        kept = _kept(records, self.view, self.n_bins)
        n_docs = len(kept.columns.arrays(self.metric.kind)[1])
        null = kept.whole(self.metric.null, self.metric.kind, n_bins=self.n_bins)
        if sentence := metrics.too_few_to_tell("ece", metrics.Null(*null), n_docs):
            say_of(_tasks(records), sentence, topic=_TOO_FEW)

    def _compute(self, function: Any, records: Sequence[Record]) -> float:
        options = {"n_bins": self.n_bins} if self.metric.takes_n_bins else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kept = _kept(records, self.view, self.n_bins)
            arrays = kept.columns.arrays(self.metric.kind)
            if not len(arrays[1]):
                say_once(f"{_tasks(records)}: {self.metric.name} is undefined: {self._why_none(records)}")
                return float("nan")
            if isinstance(function, Part):
                value = float(kept.whole(function.whole, self.metric.kind, **options)[function.index])
            else:
                value = float(function(*arrays, **options))
        for warning in caught:
            if not issubclass(warning.category, UserWarning):  # not a metric's reason but somebody's bug
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            else:
                say_of(_tasks(records), str(warning.message))
        return value

    def _why_none(self, records: Sequence[Record]) -> str:
        seen = records if self.view is None else list(self.view(records))
        if any(doc.kind == "multiple_choice" for doc in seen):
            return "no doc has a sound gold label"
        if self.metric.kind != "top_label":
            return "no doc has a token of a reference answer"
        if all(doc.confidence is None for doc in seen):
            return "no doc has a confidence"
        return "no doc has an answer that is right or wrong"

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


class _Kept:
    """What was computed of some records that other metrics of a table need as well.

    Attributes:
        records: these; they are kept, since an id is a record's own only while it lives.
        columns: their columns, as a view sees them.
    """

    def __init__(self, records: Sequence[Record], view: View | None, n_bins: int) -> None:
        self.records = tuple(records)
        self.columns = Columns.of(records if view is None else view(records), n_bins)
        self._wholes: dict[Any, Sequence[float]] = {}

    def whole(self, function: Any, kind: str, **options: Any) -> Sequence[float]:
        """Return an interval or a null, of which a table shows several numbers."""
        if function not in self._wholes:
            self._wholes[function] = function(*self.columns.arrays(kind), **options)
        return self._wholes[function]


_KEPT: dict[Any, _Kept] = {}


def _kept(records: Sequence[Record], view: View | None, n_bins: int) -> _Kept:
    """Return what is kept of these records: the last ones, since a table asks for one metric after another of them."""
    key = view, n_bins, tuple(map(id, records))
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = _Kept(records, view, n_bins)
    return _KEPT[key]


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
    for source in sources():
        if left_out := [record for record in records if record.corpus is None and source.left_out(record)]:
            message = source.left_out_message.format(n=len(left_out), total=len(records), docs=_docs(left_out))
            say_once(f"{_tasks(records)}: {message}")


def _docs(records: Sequence[Record]) -> str:
    return f"docs {', '.join(str(record.doc_id) for record in records[:10])}{', ...' if len(records) > 10 else ''}"


def _tasks(records: Sequence[Record]) -> str:
    names = sorted({record.task for record in records})
    return names[0] if len(names) == 1 else f"{len(names)} tasks ({names[0]}, ...)"
