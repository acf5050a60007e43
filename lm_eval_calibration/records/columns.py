"""Many docs' records as columns: what metrics need of a doc, in less than a hundred bytes, and the metrics' arrays.

Docs are taken one by one and are not kept: a million of them fit where some ten thousand records would.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lm_eval_calibration.metrics.validation import check_n_bins
from lm_eval_calibration.records.batch import UNKNOWN, Batch
from lm_eval_calibration.records.clusters import IntIds, clusters_of
from lm_eval_calibration.records.gap_sums import Doc, batch_gap_sums

CHUNK = 1024
"""Docs that are turned into arrays at a time."""


class _Chunk(NamedTuple):
    """Some docs.

    Attributes:
        task: [n] number of the doc's task.
        doc_id: [n] -1 for none.
        cluster: [n] id of what the doc was drawn with, 0 for none.
        gold: [n] index of the gold choice; where there are no choices, whether the answer is right (2: undefined).
        n_choices: [n] number of choices; 0 for docs of other kinds.
        log_likelihoods: [sum of n_choices] of the choices, doc after doc.
        confidence: [docs without choices] nan where it is undefined.
        n_positions: [n] positions of the reference; 0 where no token distributions were recorded.
        n_gaps: [n] bins but the first whose gap sum is not 0.
        gap_bin: [sum of n_gaps] these bins, doc after doc.
        gap: [sum of n_gaps] their gap sums; the first bin's is what makes them add up to 0.
    """

    task: NDArray[np.integer[Any]]
    doc_id: NDArray[np.int64]
    cluster: IntIds
    gold: NDArray[np.integer[Any]]
    n_choices: NDArray[np.integer[Any]]
    log_likelihoods: NDArray[np.float64]
    confidence: NDArray[np.float64]
    n_positions: NDArray[np.integer[Any]]
    n_gaps: NDArray[np.integer[Any]]
    gap_bin: NDArray[np.integer[Any]]
    gap: NDArray[np.float64]


_UNDEFINED = 2
"""Stands for whether an answer is right where nobody can tell."""


class Columns:
    """The docs with a sound gold label, added one by one, as arrays.

    Args:
        n_bins: bins of the gap sums that Full-ECE is computed from.

    Raises:
        ValueError: ``n_bins`` is not a positive integer.
    """

    def __init__(self, n_bins: int = 10) -> None:
        self.n_bins = check_n_bins(n_bins)
        self._chunks: list[_Chunk] = []
        self._pending: list[Doc] = []
        self._tasks: dict[str, int] = {}
        self._no_gaps = ""  # why there are none
        self._sorted: NDArray[np.int64] | None = None  # all kinds of arrays have one order
        self._made: dict[str, tuple[Any, Any]] = {}  # by kind, as several metrics take each

    @classmethod
    def of(cls, docs: Iterable[Doc], n_bins: int = 10) -> Self:
        """Take the columns of these docs; an iterator's docs are not kept."""
        columns = cls(n_bins)
        for doc in docs:
            columns.add(doc)
        columns._compact()
        return columns

    def add(self, doc: Doc) -> None:
        """Take a doc; one with choices but without a sound gold label or a finite log-likelihood is left out."""
        self._pending.append(doc)
        if len(self._pending) == CHUNK:
            self._compact()

    def add_batch(self, docs: Batch) -> None:
        """Take some docs, as :meth:`add` takes each."""
        self._compact()
        self._take(docs)

    def extend(self, other: Self) -> None:
        """Take another's docs, of the same tasks."""
        self._compact()
        other._compact()
        code = np.array([self._tasks.setdefault(task, len(self._tasks)) for task in other._tasks], dtype=np.int64)
        self._chunks += [chunk._replace(task=_small(code[chunk.task])) for chunk in other._chunks]
        self._no_gaps = self._no_gaps or other._no_gaps
        self._sorted, self._made = None, {}

    def __len__(self) -> int:
        self._compact()
        return sum(len(chunk.doc_id) for chunk in self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes of the docs' arrays."""
        self._compact()
        return sum(column.nbytes for chunk in self._chunks for column in chunk)

    def arrays(self, kind: str) -> tuple[Any, Any]:
        """Return the two arguments that metrics of a kind take, ordered by task, then doc id.

        Args:
            kind: ``top_label`` (confidence [N], correct [N]), ``choices`` (probs [N, K], or N vectors where K
                differs; labels [N]) or ``full_vocabulary`` (gap_sums [N, n_bins], n_positions [N]). Docs
                without a confidence (an empty generation, say) are left out of the first, without a single
                reference token of the last.

        Raises:
            ValueError: Unknown kind; for ``choices`` a doc that has none; for ``full_vocabulary`` a doc without
                (sound) token distributions, or with too few of their probabilities for so many bins.
        """
        self._compact()
        make = {"top_label": self._top_label, "choices": self._choices, "full_vocabulary": self._full_vocabulary}
        if kind in make:
            first, second = self._made.get(kind) or make[kind]()
            if isinstance(first, list):  # rows of different lengths, which one copy would not keep from being changed
                return first, second
            self._made[kind] = first, second
            return first.copy(), second.copy()
        raise ValueError(f"unknown kind of metric {kind!r}; there are top_label, choices and full_vocabulary")

    def clusters(self, kind: str) -> IntIds | None:
        """Return the cluster of each doc of :meth:`arrays` of a kind, [N]; None where none of them has one."""
        return clusters_of(self.cluster_ids(kind))

    def cluster_ids(self, kind: str) -> IntIds:
        """Return the same as ids, 0 for a doc of none; columns of several tasks are put together by these."""
        self._compact()
        ids = self._column("cluster").astype(np.uint64)
        if kind == "top_label":
            return ids[self._with_confidence(self._answers()[0])]
        return ids[self._with_positions() if kind == "full_vocabulary" else self._order()]

    @property
    def labels(self) -> NDArray[np.int64]:
        """[docs with choices] position of each one's gold choice, ordered as :meth:`arrays` are."""
        self._compact()
        order = self._order()
        has_choices = self._column("n_choices")[order] > 0
        return self._column("gold")[order][has_choices].astype(np.int64)

    def _compact(self) -> None:
        """Turn the pending docs into arrays."""
        docs, self._pending = self._pending, []
        if docs:
            self._take(Batch.of(docs))

    def _take(self, docs: Batch) -> None:
        docs = docs.take(np.flatnonzero(docs.is_sound).tolist())
        if not len(docs):
            return
        self._sorted, self._made = None, {}
        code = {task: self._tasks.setdefault(task, len(self._tasks)) for task in sorted(set(docs.task))}
        has_choices = docs.n_choices > 0
        outcome = np.where(has_choices, docs.gold, np.where(docs.correct == UNKNOWN, _UNDEFINED, docs.correct))
        self._chunks.append(
            _Chunk(
                _small([code[task] for task in docs.task]),
                docs.doc_id,
                docs.cluster,
                _small(outcome),
                _small(docs.n_choices),
                docs.log_likelihoods,
                docs.confidence[~has_choices],
                _small(np.maximum(docs.n_positions, 0)),
                *self._gaps(docs),
            )
        )

    def _gaps(self, docs: Batch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Columns n_gaps, gap_bin and gap of the docs; zeros from the first docs on that have no sound ones."""
        sums = np.zeros((len(docs), self.n_bins))
        if not self._no_gaps:
            try:
                sums = batch_gap_sums(docs, self.n_bins)
            except ValueError as error:
                self._no_gaps = str(error)  # of no concern to metrics of another kind
        rows, bins = np.nonzero(sums[:, 1:])
        n_gaps = np.bincount(rows, minlength=len(docs))
        return _small(n_gaps), _small(bins + 1), sums[rows, bins + 1]

    def _column(self, name: str) -> NDArray[Any]:
        parts = [getattr(chunk, name) for chunk in self._chunks]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _order(self) -> NDArray[np.int64]:
        """Docs by task, then doc id, then as they came."""
        if self._sorted is None:
            rank = np.argsort(np.argsort(list(self._tasks)))
            self._sorted = np.lexsort((self._column("doc_id"), rank[self._column("task")]))
        return self._sorted

    def _top_label(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        confidence, correct = self._answers()
        rows = self._with_confidence(confidence)
        return confidence[rows], correct[rows]

    def _with_confidence(self, confidence: NDArray[np.float64]) -> NDArray[np.int64]:
        """Docs in order, less those without a confidence or an outcome."""
        undefined = (self._column("n_choices") == 0) & (self._column("gold") == _UNDEFINED)
        order = self._order()
        known: NDArray[np.int64] = order[~np.isnan(confidence[order]) & ~undefined[order]]
        return known

    def _answers(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Confidence of every doc, nan where there is none, and whether its answer is right."""
        gold = self._column("gold")
        confidence, correct = np.empty(len(gold)), np.empty(len(gold), dtype=np.int64)
        for docs, _, log_likelihoods in self._by_n_choices():
            largest = log_likelihoods.max(axis=1, keepdims=True)
            confidence[docs] = 1 / np.exp(log_likelihoods - largest).sum(axis=1)  # the largest of their softmax
            correct[docs] = log_likelihoods.argmax(axis=1) == gold[docs]  # the first of equals, as the harness counts
        others = self._column("n_choices") == 0
        confidence[others], correct[others] = self._column("confidence"), gold[others]
        return confidence, correct

    def _choices(self) -> tuple[NDArray[np.float64] | list[NDArray[np.float64]], NDArray[np.int64]]:
        order = self._order()
        without = np.flatnonzero(self._column("n_choices") == 0)
        if len(without):
            task = list(self._tasks)[self._column("task")[without[0]]]
            raise ValueError(
                f"{task}: a generated answer has no choices; brier_top_label, ece and auroc are defined for it, "
                "brier_score, nll and classwise metrics are not"
            )
        labels = self._column("gold")[order].astype(np.int64)
        groups = [(docs, entries, softmax(rows, axis=1)) for docs, entries, rows in self._by_n_choices()]
        if len(groups) == 1:
            return groups[0][2][order], labels
        n_choices = self._column("n_choices")
        ends = np.cumsum(n_choices, dtype=np.int64)
        flat = np.empty(ends[-1] if len(ends) else 0)
        for _, entries, probs in groups:
            flat[entries] = probs
        return [flat[ends[i] - n_choices[i] : ends[i]] for i in order.tolist()], labels

    def _full_vocabulary(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if self._no_gaps:
            raise ValueError(self._no_gaps)
        order = self._order()
        gaps = np.zeros((len(order), self.n_bins))
        row_of = np.empty(len(order), dtype=np.int64)
        row_of[order] = np.arange(len(order))
        gaps[np.repeat(row_of, self._column("n_gaps")), self._column("gap_bin")] = self._column("gap")
        gaps[:, 0] = -gaps[:, 1:].sum(axis=1)
        n_positions, rows = self._column("n_positions").astype(np.int64), self._with_positions()
        return gaps[row_of[rows]], n_positions[rows]

    def _with_positions(self) -> NDArray[np.int64]:
        """Docs in order, less those without a token of a reference."""
        order = self._order()
        return order[((self._column("n_positions") > 0) | (self._column("n_choices") > 0))[order]]

    def _by_n_choices(self) -> Iterable[tuple[Any, Any, NDArray[np.float64]]]:
        """Docs with the same number of choices, where their log-likelihoods lie, and these, [n, K]."""
        n_choices, flat = self._column("n_choices"), self._column("log_likelihoods")
        found = np.flatnonzero(np.bincount(n_choices))
        if len(found) == 1 and found[0] > 0:  # as usual: nothing to choose, nothing to copy
            yield slice(None), slice(None), flat.reshape(-1, found[0])
            return
        first = np.cumsum(n_choices, dtype=np.int64) - n_choices
        for k in found[found > 0].tolist():
            docs = np.flatnonzero(n_choices == k)
            entries = first[docs, None] + np.arange(k)
            yield docs, entries, flat[entries]


def metric_arrays(docs: Iterable[Doc], kind: str, n_bins: int) -> tuple[Any, Any]:
    """Return :meth:`Columns.arrays` of a kind of these docs."""
    return Columns.of(docs, n_bins).arrays(kind)


def _small(values: Any) -> NDArray[Any]:
    """Integers of at least 0 in as few bytes as they fit in."""
    array = np.asarray(values, dtype=np.int64)
    return array.astype(np.min_scalar_type(array.max(initial=0)))
