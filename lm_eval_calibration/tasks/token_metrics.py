"""The metrics of tokens: of a corpus's texts, from the sums that records hold, and of generated answers' references."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.pools import DocPool, Statistic
from lm_eval_calibration.metrics import CORPUS_CATALOG, Metric
from lm_eval_calibration.records import AnswerRecord, Corpus, CorpusRecord, Record, ordered
from lm_eval_calibration.records.clusters import as_numbers, clusters_of

TOKEN_ACCURACY = "token_accuracy"

_SUMS: Mapping[str, Callable[[Corpus], Any]] = {
    "full_vocabulary": lambda corpus: corpus.gap_sums,
    "token_gaps": lambda corpus: corpus.top_gaps,
    "token_counts": lambda corpus: sum(corpus.top_correct or ()),
}
"""What a metric takes of a text, by the metric's kind."""


@dataclass(frozen=True)
class TokenStatistic(Statistic):
    """A metric of every token in a table."""

    metric: Metric
    n_bins: int = 10
    of_references: bool = False

    def value(self, pool: DocPool) -> float:
        """Return the metric over the records, ``nan`` where it is undefined."""
        return self._compute(self.metric.value, pool)

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error, a bootstrap over docs, or clusters of them."""
        return self._compute(self.metric.stderr, pool)

    def _compute(self, function: Callable[..., float], pool: DocPool) -> float:
        docs = [(found, r.cluster) for r in ordered(pool.records) if (found := self._sums_of(r)) is not None]
        sums, clusters = [found for found, _ in docs], clusters_of(as_numbers([cluster for _, cluster in docs]))
        if not sums:
            which = "no doc has a token of a reference answer" if self.of_references else "no text has a token"
            logger.warning(f"{pool.label}: {self.metric.name} is undefined: {which}")
            return float("nan")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            arrays = map(np.array, zip(*sums, strict=True))
            value = float(function(*arrays, **({} if function is self.metric.value else {"cluster": clusters})))
        for warning in () if self.of_references else caught:  # few references are no news beside few answers
            logger.warning(f"{pool.label}: {warning.message}")
        return value

    def _sums_of(self, record: Record) -> tuple[Any, int] | None:
        """Return what the metric takes of a doc, and its number of tokens; None where it has none."""
        if self.of_references:
            return token_hits(record) if isinstance(record, AnswerRecord) and record.log_probs else None
        corpus = record.corpus if isinstance(record, CorpusRecord) else None
        return (_SUMS[self.metric.kind](corpus), corpus.n_tokens) if corpus and corpus.n_tokens else None


def accuracy_of_references() -> TokenStatistic:
    """Return the accuracy of the tokens of generated answers' references."""
    return TokenStatistic(CORPUS_CATALOG[TOKEN_ACCURACY], of_references=True)


def token_hits(record: AnswerRecord) -> tuple[int, int]:
    """Return how many of the reference's tokens are the most probable ones at their positions, and how many there are.

    A token is told by its probability; where no entry reaches the least probability that is recorded, it counts as a
    miss.
    """
    probs = np.exp(record.log_probs or ())
    large = record.large_probs or ()
    hits = [bool(at) and p >= max(at) for p, at in zip(probs.tolist(), large, strict=True)]
    return sum(hits), len(hits)
