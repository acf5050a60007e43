"""Gap sums of docs: what Full-ECE is computed from, of the token distributions that records hold."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration import metrics
from lm_eval_calibration.records.corpus import CorpusRecord
from lm_eval_calibration.records.record import KEPT_PROB, AnswerRecord, Record, ScoredAnswer

Doc = Record | ScoredAnswer


def doc_gap_sums(docs: Sequence[Doc], n_bins: int) -> NDArray[np.float64]:
    """Hits minus probability mass of each Full-ECE bin of each doc, [N, n_bins], summed over its positions.

    Raises:
        ValueError: naming the first doc without token distributions, or with some that can't be.
    """
    if any(isinstance(doc, CorpusRecord) for doc in docs):
        rows = [_corpus_gap_sums(d, n_bins) if isinstance(d, CorpusRecord) else doc_gap_sums([d], n_bins) for d in docs]
        return np.concatenate(rows)
    answers = [doc for doc in docs if isinstance(doc, AnswerRecord) and doc.log_probs is not None]
    if len(answers) < len(docs):
        first = next(doc for doc in docs if not isinstance(doc, AnswerRecord) or doc.log_probs is None)
        raise ValueError(f"{first.task} doc {first.doc_id}: no token distributions were recorded")
    # A record that does not tell from where on its probabilities were kept has all of at least KEPT_PROB.
    metrics.check_kept_from(n_bins, max(KEPT_PROB if doc.kept_from is None else doc.kept_from for doc in answers))
    positions = [large for doc in answers for large in doc.large_probs or ()]
    log_probs = list(chain.from_iterable(doc.log_probs or () for doc in answers))
    large_probs = list(chain.from_iterable(positions))
    try:
        n_large = np.array([len(large) for large in positions], dtype=np.int64)
        gaps = metrics.gap_sums_of_positions(large_probs, n_large, np.exp(log_probs), n_bins=n_bins)
    except (ValueError, TypeError) as error:
        if len(answers) == 1:
            raise ValueError(f"{answers[0].label}: {error}") from error
        for doc in answers:
            doc_gap_sums([doc], n_bins)
        raise
    n_positions = np.array([len(doc.log_probs or ()) for doc in answers])
    sums, some = np.zeros((len(answers), n_bins)), n_positions > 0
    if some.any():
        sums[some] = np.add.reduceat(gaps, (np.cumsum(n_positions) - n_positions)[some], axis=0)
    return sums


def _corpus_gap_sums(doc: CorpusRecord, n_bins: int) -> NDArray[np.float64]:
    """[1, n_bins] gap sums of a text, which has those of its run's bins only."""
    if doc.corpus.gap_sums is None:
        raise ValueError(f"{doc.label}: no token distributions were recorded")
    if doc.corpus.n_bins != n_bins:
        raise ValueError(
            f"{doc.label}: the sums of a corpus are those of the {doc.corpus.n_bins} bins of its run, "
            f"not of {n_bins}: ask for n_bins={doc.corpus.n_bins}, or run again"
        )
    return np.array([doc.corpus.gap_sums])
