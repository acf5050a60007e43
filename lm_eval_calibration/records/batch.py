"""Some docs as columns: what metrics need of them, whatever file or object they come from."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lm_eval_calibration.records.clusters import IntIds, as_numbers
from lm_eval_calibration.records.corpus import CorpusRecord
from lm_eval_calibration.records.schema import ROUNDING

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNKNOWN = -1
"""Stands for a doc id, a gold choice, an outcome or a number of positions that there is not."""

CHOICES = "multiple_choice"
KINDS = (CHOICES, "generation", "answer", "corpus")


@dataclass(frozen=True)
class Batch:
    """Some docs.

    Attributes:
        task: [n] names.
        kind: [n] of the records.
        doc_id: [n].
        cluster: [n] id of what the doc was drawn with, 0 for none.
        gold: [n] index of the gold choice; -1 where there is none.
        correct: [n] whether an answer that is no choice is right; -1 where nobody can tell.
        confidence: [n] of an answer that is no choice, nan where it is undefined.
        n_choices: [n] 0 for docs of other kinds.
        log_likelihoods: [sum of n_choices] of the choices, doc after doc.
        kept_from: [n] from where on probabilities were kept; nan where the record does not tell.
        n_positions: [n] of the reference; -1 where no token distributions were recorded.
        log_probs: [sum of positions] of the reference's tokens.
        n_large: [sum of positions] number of large probabilities.
        large_probs: [sum of n_large].
        doc_hash: [n].
        prompt_hash: [n].
        certificate: [n] as JSON.
        corpus: the records that are texts of a corpus, by their row.
    """

    task: list[str]
    kind: list[str]
    doc_id: Ints
    cluster: IntIds
    gold: Ints
    correct: Ints
    confidence: Floats
    n_choices: Ints
    log_likelihoods: Floats
    kept_from: Floats
    n_positions: Ints
    log_probs: Floats
    n_large: Ints
    large_probs: Floats
    doc_hash: list[str] = field(default_factory=list)
    prompt_hash: list[str] = field(default_factory=list)
    certificate: list[str] = field(default_factory=list)
    corpus: dict[int, CorpusRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, docs: Sequence[Any], *, with_names: bool = False) -> Self:
        """Take docs: records, answers with a confidence, or lines as the typed decoder reads them.

        Args:
            docs: of any kinds.
            with_names: whether hashes and certificates are wanted.
        """
        choices = [doc.log_likelihoods if doc.kind == CHOICES else () for doc in docs]
        log_probs = [getattr(doc, "log_probs", None) for doc in docs]
        positions = list(chain.from_iterable(getattr(doc, "large_probs", None) or () for doc in docs))
        others = [doc if doc.kind != CHOICES else None for doc in docs]
        return cls(
            [doc.task for doc in docs],
            [doc.kind for doc in docs],
            _ints(doc.doc_id for doc in docs),
            as_numbers([doc.cluster for doc in docs]),
            _ints(doc.gold if doc.kind == CHOICES else None for doc in docs),
            _ints(None if doc is None else doc.correct for doc in others),
            _floats([None if doc is None else doc.confidence for doc in others]),
            np.fromiter(map(len, choices), dtype=np.int64, count=len(docs)),
            _logs(chain.from_iterable(choices)),
            _floats([getattr(doc, "kept_from", None) for doc in docs]),
            np.array([_n_positions(doc, probs) for doc, probs in zip(docs, log_probs, strict=True)], dtype=np.int64),
            _logs(chain.from_iterable(probs or () for probs in log_probs)),
            np.fromiter(map(len, positions), dtype=np.int64, count=len(positions)),
            np.fromiter(chain.from_iterable(positions), dtype=np.float64),
            *(_names(docs) if with_names else ([], [], [])),
            {i: doc for i, doc in enumerate(docs) if isinstance(doc, CorpusRecord)},
        )

    def __len__(self) -> int:
        return len(self.doc_id)

    @cached_property
    def is_sound(self) -> NDArray[np.bool_]:
        """[n] whether metrics can take the doc: it has a gold choice and a finite log-likelihood, or no choices."""
        return np.asarray((self.n_choices == 0) | ((self.gold >= 0) & self.has_likelihood))

    @cached_property
    def has_likelihood(self) -> NDArray[np.bool_]:
        """[n] whether some choice has a finite log-likelihood; True where there are no choices."""
        finite = np.repeat(np.arange(len(self)), self.n_choices)[np.isfinite(self.log_likelihoods)]
        return np.asarray((np.bincount(finite, minlength=len(self)) > 0) | (self.n_choices == 0))

    def by_task(self) -> Iterator[tuple[str, list[int]]]:
        """Yield each task with the rows of its docs."""
        if len(set(self.task)) == 1:
            yield self.task[0], list(range(len(self)))
            return
        rows: dict[str, list[int]] = {}
        for row, task in enumerate(self.task):
            rows.setdefault(task, []).append(row)
        yield from sorted(rows.items())

    def take(self, rows: Sequence[int]) -> Self:
        """Return the docs of these rows, which are in order."""
        if len(rows) == len(self):
            return self
        which = np.array(rows, dtype=np.int64)
        position, large = self.first_position, np.concatenate([[0], np.cumsum(self.n_large)])
        of_position = _spans(position[which], self._taken_positions[which])
        flat: dict[str, Any] = {
            "log_likelihoods": self.log_likelihoods[
                _spans((np.cumsum(self.n_choices) - self.n_choices)[which], self.n_choices[which])
            ],
            "log_probs": self.log_probs[of_position],
            "n_large": self.n_large[of_position],
            "large_probs": self.large_probs[_spans(large[of_position], self.n_large[of_position])],
        }
        lists: dict[str, Any] = {
            f.name: [column[i] for i in rows] for f in fields(self) if (column := self._list(f.name))
        }
        arrays: dict[str, Any] = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name in _OF_DOCS}
        corpus = {row: self.corpus[i] for row, i in enumerate(rows) if i in self.corpus}
        return replace(self, **flat, **lists, **arrays, corpus=corpus)

    def _list(self, name: str) -> list[str]:
        column = getattr(self, name)
        return column if isinstance(column, list) else []

    @property
    def _taken_positions(self) -> Ints:
        """[n] entries of ``log_probs`` that are the doc's."""
        positions = np.maximum(self.n_positions, 0)
        positions[list(self.corpus)] = 0
        return positions

    @cached_property
    def first_position(self) -> Ints:
        """[n + 1] where each doc's positions begin in ``log_probs``, and where they end."""
        return np.concatenate([[0], np.cumsum(self._taken_positions)])

    def label(self, row: int) -> str:
        """Return task and doc, as messages name them."""
        return label(self.task[row], self.doc_id[row])


_OF_DOCS = ("doc_id", "cluster", "gold", "correct", "confidence", "n_choices", "kept_from", "n_positions")


def _spans(first: Ints, length: Ints) -> Ints:
    """Entries first, first + 1, ... of each of some spans, one after the other."""
    ends = np.cumsum(length)
    return np.repeat(first - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)


def answers(docs: Batch) -> tuple[Floats, Ints]:
    """Return [n] confidence, nan where there is none, and 1 where the answer is right, 0 where not, -1 unknown."""
    confidence, correct = docs.confidence.copy(), docs.correct.copy()
    first, possible = np.cumsum(docs.n_choices) - docs.n_choices, docs.has_likelihood
    for k in np.unique(docs.n_choices[docs.n_choices > 0]):
        rows = np.flatnonzero((docs.n_choices == k) & possible)
        log_likelihoods = docs.log_likelihoods[first[rows, None] + np.arange(k)]
        confidence[rows] = softmax(log_likelihoods, axis=1).max(axis=1)
        correct[rows] = log_likelihoods.argmax(axis=1) == docs.gold[rows]  # the first of equals
    correct[~docs.is_sound] = UNKNOWN
    return confidence, correct


def first_unsound(docs: Batch) -> tuple[int, str] | None:
    """Return row and name of a number that no record could hold, where there is one."""
    large, first = docs.large_probs, docs.first_position
    of_choice = np.repeat(np.arange(len(docs)), docs.n_choices)
    of_position = np.repeat(np.arange(len(docs)), np.diff(first))
    kinds = {kind: kind == CHOICES for kind in KINDS}  # others are neither
    has_choices = np.array([kinds.get(kind, -1) for kind in docs.kind])
    checks = {
        "kind": (has_choices == (docs.n_choices > 0), None),
        "gold": ((docs.gold == UNKNOWN) | ((docs.gold >= 0) & (docs.gold < docs.n_choices)), None),
        "correct": ((docs.correct >= UNKNOWN) & (docs.correct <= 1), None),
        "confidence": (np.isnan(docs.confidence) | ((docs.confidence >= 0) & (docs.confidence <= 1 + ROUNDING)), None),
        "kept_from": (np.isnan(docs.kept_from) | ((docs.kept_from > 0) & (docs.kept_from <= 1)), None),
        "log_likelihoods": (docs.log_likelihoods <= ROUNDING, of_choice),
        "log_probs": (docs.log_probs <= ROUNDING, of_position),
        "large_probs": ((large >= 0) & (large <= 1 + ROUNDING), np.repeat(of_position, docs.n_large)),
    }
    for name, (is_sound, doc_of) in checks.items():
        if (bad := np.flatnonzero(~is_sound)).size:
            return int(bad[0] if doc_of is None else doc_of[bad[0]]), f"{name} can't be"
    return None


def label(task: str, doc_id: int) -> str:
    """Return task and doc, as messages name them."""
    return f"{task} doc {None if doc_id == UNKNOWN else doc_id}"


def _n_positions(doc: Any, log_probs: Sequence[float] | None) -> int:
    if isinstance(doc, CorpusRecord):
        return UNKNOWN if doc.corpus.n_tokens is None else doc.corpus.n_tokens
    return UNKNOWN if log_probs is None else len(log_probs)


def _names(docs: Sequence[Any]) -> tuple[list[str], list[str], list[str]]:
    return [doc.doc_hash for doc in docs], [doc.prompt_hash for doc in docs], [_as_json(d.certificate) for d in docs]


def _as_json(certificate: Any) -> str:
    if certificate is None:
        return "{}"
    return bytes(certificate).decode() if not isinstance(certificate, dict) else json.dumps(certificate, sort_keys=True)


def _ints(values: Iterable[int | None]) -> Ints:
    return np.array([UNKNOWN if value is None else value for value in values], dtype=np.int64)


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)


def _logs(values: Iterable[float | None]) -> Floats:
    """Log-likelihoods as numbers; what is None, in JSON null, is minus infinity."""
    numbers = np.array(list(values), dtype=np.float64)
    numbers[np.isnan(numbers)] = -math.inf
    return numbers
