"""From the docs' records to a metric's value and standard error."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import logger, warn_of_tasks
from lm_eval_calibration.harness.pools import NO_STDERR, DocPool, Statistic
from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import (
    EMPTY,
    NOT_FOUND,
    REFUSED,
    TRUNCATED,
    ChoicesRecord,
    GenerationRecord,
    Record,
)
from lm_eval_calibration.records.clusters import as_numbers, n_clusters
from lm_eval_calibration.tasks.confidences.registry import sources
from lm_eval_calibration.tasks.confidences.table_rows import Part, TableMetric, View

_TOO_FEW = (
    "too few docs to tell the model from a calibrated one by ece, or ece is mostly noise; the larger a group of tasks, "
    "the more its ece says"
)


N_CLUSTERS = "n_clusters"
"""The row that shows how many clusters a task's docs are of."""


@dataclass(frozen=True)
class MetricStatistic(Statistic):
    """A metric of confidences or distributions in a table."""

    metric: Metric
    n_bins: int = 10
    view: View | None = None  # how the metric sees the records; None: as they are
    has_stderr: bool = True
    instead: "MetricStatistic | None" = None  # what is computed where its view has docs

    @classmethod
    def of(cls, row: TableMetric, n_bins: int) -> Self:
        """Return a row of the table in some number of bins."""
        instead = None if row.instead is None else cls.of(row.instead, n_bins)
        return cls(row.metric, n_bins, row.view, row.has_stderr, instead)

    def value(self, pool: DocPool) -> float:
        """Return the metric over the records, ``nan`` where it is undefined."""
        pool.once("left out", lambda: _warn_of_left_out(pool))
        if self.instead is not None and len(pool.columns(self.instead.view, self.n_bins)):
            return self.instead.value(pool)
        value = self._compute(self.metric.value, pool)
        if self.metric.name == "ece" and not math.isnan(value):
            self._warn_of_too_few(pool)
        return value

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error."""
        if self.instead is not None and len(pool.columns(self.instead.view, self.n_bins)):
            return self.instead.stderr(pool)
        return self._compute(self.metric.stderr, pool)

    def _warn_of_too_few(self, pool: DocPool) -> None:
        """Warn where there are too few docs to tell the model from a calibrated one."""
        n_docs = len(pool.columns(self.view, self.n_bins).arrays(self.metric.kind)[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the standard error says what is undefined
            null = self._parts(self.metric.null, pool)
        if sentence := metrics.too_few_to_tell("ece", metrics.Null(*null), n_docs):
            warn_of_tasks(pool.tasks, sentence, summary=_TOO_FEW)

    def _parts(self, function: Any, pool: DocPool) -> tuple[float, ...]:
        """Return an interval or a null, of which a table shows several numbers."""
        columns, options = pool.columns(self.view, self.n_bins), self._options(pool, of_value=False)
        key = function, self.view, self.n_bins
        parts: tuple[float, ...] = pool.once(key, lambda: function(*columns.arrays(self.metric.kind), **options))
        return parts

    def _options(self, pool: DocPool, *, of_value: bool) -> dict[str, Any]:
        """Return the options of the metric; those of its error, interval and null have the docs' clusters."""
        bins = {"n_bins": self.n_bins} if self.metric.takes_n_bins else {}
        clusters = {} if of_value else {"cluster": pool.columns(self.view, self.n_bins).clusters(self.metric.kind)}
        return bins | clusters

    def _compute(self, function: Callable[..., float], pool: DocPool) -> float:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            arrays = pool.columns(self.view, self.n_bins).arrays(self.metric.kind)
            if not len(arrays[1]):
                logger.warning(f"{pool.label}: {self.metric.name} is undefined: {self._why_none(pool)}")
                return float("nan")
            if isinstance(function, Part):
                value = float(self._parts(function.whole, pool)[function.index])
            else:
                options = self._options(pool, of_value=function is self.metric.value)
                value = float(function(*arrays, **options))
        for warning in caught:
            if not issubclass(warning.category, UserWarning):  # not a metric's reason but somebody's bug
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            else:
                warn_of_tasks(pool.tasks, str(warning.message))
        return value

    def _why_none(self, pool: DocPool) -> str:
        seen = pool.records if self.view is None else list(self.view(pool.records))
        if any(isinstance(doc, ChoicesRecord) for doc in seen):
            answered = any(doc.has_likelihood for doc in seen if isinstance(doc, ChoicesRecord))
            return "no doc has a sound gold label" if answered else "no doc has finite log-likelihoods"
        if self.metric.kind == "choices":
            return "most answers are none of their doc's options, or their docs' right answers are none"
        if self.metric.kind != "top_label":
            return "no doc has a token of a reference answer"
        if all(doc.confidence is None for doc in seen):
            return "no doc has a confidence"
        return "no doc has an answer that is right or wrong"


@dataclass(frozen=True)
class NumberOfClusters(Statistic):
    """How many clusters the docs are of."""

    has_stderr = False

    def value(self, pool: DocPool) -> float:
        """Return the number, docs of no cluster counted as one each."""
        return float(n_clusters(as_numbers([record.cluster for record in pool.records])) or len(pool.records))

    def stderr(self, pool: DocPool) -> str:
        """Return that a count has none."""
        return NO_STDERR


def _has_outcome(outcome: str) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, GenerationRecord) and record.generation.outcome == outcome


_NOT_COUNTED = "({docs}) and have no confidence; they count in acc and in no metric of confidence"

_LEFT_OUT: dict[str, Callable[[Record], bool]] = {
    "{n} of {total} docs have a gold label outside their choices ({docs}); they count in acc and in no calibration "
    "metric": lambda record: isinstance(record, ChoicesRecord) and record.has_likelihood and record.gold is None,
    "{n} of {total} docs have no finite log-likelihoods of their choices ({docs}); they are in no calibration metric": (
        lambda record: isinstance(record, ChoicesRecord) and not record.has_likelihood
    ),
    f"{{n}} of {{total}} generated answers are empty {_NOT_COUNTED}": _has_outcome(EMPTY),
    f"{{n}} of {{total}} generated texts are cut off before an answer {_NOT_COUNTED}; a larger "
    "max_gen_toks lets them end": _has_outcome(TRUNCATED),
    f"{{n}} of {{total}} generated texts hold no answer that the filter finds {_NOT_COUNTED}": _has_outcome(NOT_FOUND),
    f"{{n}} of {{total}} generated texts are refusals {_NOT_COUNTED}": _has_outcome(REFUSED),
}
"""Warnings about docs that metrics leave out, and which docs these are."""


def _warn_of_left_out(pool: DocPool) -> None:
    found: dict[str, Sequence[Any]] = {
        message: [*filter(is_left_out, pool.records)] for message, is_left_out in _LEFT_OUT.items()
    }
    for source in sources():
        found |= source.left_out_of(pool.records)
    for message, left_out in found.items():
        if left_out:
            docs = ", ".join(str(record.doc_id) for record in left_out[:10])
            shown = f"docs {docs}{', ...' if len(left_out) > 10 else ''}"
            logger.warning(f"{pool.label}: {message.format(n=len(left_out), total=len(pool.records), docs=shown)}")
