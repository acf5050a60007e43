"""Gap sums of docs: what Full-ECE is computed from, of the token distributions that records hold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration import metrics
from lm_eval_calibration.records.batch import UNKNOWN, Batch
from lm_eval_calibration.records.corpus import CorpusRecord
from lm_eval_calibration.records.record import KEPT_PROB, Record, ScoredAnswer

Doc = Record | ScoredAnswer


def doc_gap_sums(docs: Sequence[Doc], n_bins: int) -> NDArray[np.float64]:
    """Return :func:`batch_gap_sums` of these docs."""
    return batch_gap_sums(Batch.of(docs), n_bins)


def batch_gap_sums(docs: Batch, n_bins: int) -> NDArray[np.float64]:
    """Hits minus probability mass of each Full-ECE bin of each doc, [N, n_bins], summed over its positions.

    Raises:
        ValueError: naming the first doc without token distributions, or with some that can't be.
    """
    sums = np.zeros((len(docs), n_bins))
    for row, record in docs.corpus.items():
        sums[row] = _corpus_gap_sums(record, n_bins)
    lacking = np.flatnonzero(docs.n_positions == UNKNOWN)
    if len(lacking):
        raise ValueError(f"{docs.label(lacking[0])}: no token distributions were recorded")
    if len(docs.corpus) == len(docs):
        return sums
    # A record that does not tell from where on its probabilities were kept has all of at least KEPT_PROB.
    metrics.check_kept_from(n_bins, float(np.nan_to_num(docs.kept_from, nan=KEPT_PROB).max()))
    first = docs.first_position
    some = np.flatnonzero(np.diff(first))
    if len(some):
        sums[some] = np.add.reduceat(_gaps(docs, n_bins), first[some], axis=0)
    return sums


def _gaps(docs: Batch, n_bins: int) -> NDArray[np.float64]:
    """[n_positions, n_bins] of the docs that are no texts of a corpus; the error names the doc."""
    target = np.exp(docs.log_probs)
    try:
        return metrics.gap_sums_of_positions(docs.large_probs, docs.n_large, target, n_bins=n_bins)
    except (ValueError, TypeError):
        first, large = docs.first_position, np.concatenate([[0], np.cumsum(docs.n_large)])
        for row, (i, j) in enumerate(zip(first[:-1].tolist(), first[1:].tolist(), strict=True)):
            mine = docs.large_probs[large[i] : large[j]]
            try:
                metrics.gap_sums_of_positions(mine, docs.n_large[i:j], target[i:j], n_bins=n_bins)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{docs.label(row)}: {error}") from error
        raise


def _corpus_gap_sums(doc: CorpusRecord, n_bins: int) -> NDArray[np.float64]:
    """[n_bins] gap sums of a text, which has those of its run's bins only."""
    if doc.corpus.gap_sums is None:
        raise ValueError(f"{doc.label}: no token distributions were recorded")
    if doc.corpus.n_bins != n_bins:
        raise ValueError(
            f"{doc.label}: the sums of a corpus are those of the {doc.corpus.n_bins} bins of its run, "
            f"not of {n_bins}: ask for n_bins={doc.corpus.n_bins}, or run again"
        )
    return np.array(doc.corpus.gap_sums)
