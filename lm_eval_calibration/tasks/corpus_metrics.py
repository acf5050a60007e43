"""The metrics of a corpus: of every token of all texts, from the sums that the records hold."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pooling import PooledStderr, PooledValue
from lm_eval_calibration.records.corpus import Corpus
from lm_eval_calibration.records.record import Record, ordered


class CorpusMetric(NamedTuple):
    """A metric of the tokens of a corpus.

    Attributes:
        name: in the table.
        higher_is_better: which way is better.
        value: function of the docs' sums and their numbers of tokens.
        stderr: the same, its standard error.
        sums: what it takes of a doc.
    """

    name: str
    higher_is_better: bool
    value: Callable[[Any, Any], float]
    stderr: Callable[[Any, Any], float]
    sums: Callable[[Corpus], Any]


_METRICS = (
    CorpusMetric(
        "full_ece",
        False,
        metrics.full_ece_from_gap_sums,
        metrics.full_ece_from_gap_sums_stderr,
        lambda corpus: corpus.gap_sums,
    ),
    CorpusMetric("ece", False, metrics.token_ece, metrics.token_ece_stderr, lambda corpus: corpus.top_gaps),
    CorpusMetric(
        "token_accuracy",
        True,
        metrics.token_accuracy,
        metrics.token_accuracy_stderr,
        lambda corpus: sum(corpus.top_correct or ()),
    ),
)

CORPUS_METRICS = {metric.name: metric for metric in _METRICS}
"""By name; beside them stand the stock task's perplexities."""


@dataclass(frozen=True)
class CorpusAggregation:
    """The harness's aggregation of one metric: records in, value out; groups pool it over all their texts."""

    metric: CorpusMetric
    n_bins: int = 10

    def __call__(self, records: Sequence[Record]) -> Any:
        """Return the metric over the records, ``nan`` where it is undefined."""
        return PooledValue(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the metric as a plain float."""
        return self._compute(self.metric.value, records)

    def _compute(self, function: Callable[[Any, Any], float], records: Sequence[Record]) -> float:
        texts = [record.corpus for record in ordered(records) if record.corpus is not None and record.corpus.n_tokens]
        if not texts:
            warn_once(f"{records[0].task}: {self.metric.name} is undefined: no text has a token")
            return float("nan")
        sums, n_tokens = np.array([self.metric.sums(text) for text in texts]), [text.n_tokens for text in texts]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(function(sums, n_tokens))
        for warning in caught:
            warn_once(f"{records[0].task}: {warning.message}")
        return value

    def not_pooled(self, other: Any) -> float:
        """Say that tasks computed otherwise can't be pooled with these, and return nan."""
        kind = f"n_bins {self.n_bins} and {other.n_bins}" if isinstance(other, CorpusAggregation) else "other docs"
        warn_once(f"a group mixes corpora with {kind}: its {self.metric.name} is undefined")
        return float("nan")


@dataclass(frozen=True)
class CorpusStderr(CorpusAggregation):
    """The same for the metric's standard error; "N/A" for a single text, as the harness has it."""

    def __call__(self, records: Sequence[Record]) -> Any:
        """Return the standard error over the records."""
        return "N/A" if len(records) < 2 else PooledStderr(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the standard error as a plain float."""
        return self._compute(self.metric.stderr, records)
