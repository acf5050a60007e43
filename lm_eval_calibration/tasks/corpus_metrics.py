"""The metrics of a corpus: of every token of all texts, from the sums that the records hold."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pools import DocPool, Statistic
from lm_eval_calibration.records import Corpus, CorpusRecord, ordered


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
class CorpusStatistic(Statistic):
    """One of these metrics in a table."""

    metric: CorpusMetric
    n_bins: int = 10

    def value(self, pool: DocPool) -> float:
        """Return the metric over the records, ``nan`` where it is undefined."""
        return self._compute(self.metric.value, pool)

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error."""
        return self._compute(self.metric.stderr, pool)

    def _compute(self, function: Callable[[Any, Any], float], pool: DocPool) -> float:
        texts = [r.corpus for r in ordered(pool.records) if isinstance(r, CorpusRecord) and r.corpus.n_tokens]
        if not texts:
            warn_once(f"{pool.tasks}: {self.metric.name} is undefined: no text has a token")
            return float("nan")
        sums, n_tokens = np.array([self.metric.sums(text) for text in texts]), [text.n_tokens for text in texts]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(function(sums, n_tokens))
        for warning in caught:
            warn_once(f"{pool.tasks}: {warning.message}")
        return value
