"""The docs of one task of a run, in a few hundred bytes each."""

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.plots import Vocabulary, VocabularyCounter
from lm_eval_calibration.records import Columns
from lm_eval_calibration.records.batch import Batch, answers
from lm_eval_calibration.records.display import some
from lm_eval_calibration.results.reading import SamplesFile

SHOWN = 5
"""Docs that are named where something is said of more."""


class TaskDocs:
    """The docs of one task, added some at a time; what is kept of each is a few hundred bytes.

    Attributes:
        name: of the task.
        columns: the docs with a sound gold label, for the metrics.
        doc_ids: [N] number of each doc in its split, -1 for none.
        doc_hashes: [N] the same doc has the same hash in every run.
        prompt_hashes: [N] of the prompt.
        clusters: [N] id of what each doc was drawn with, 0 for nothing known.
        kinds: [N] kind of the record.
        confidence: [N] nan where it is undefined.
        correct: [N] 1, 0 or, where nobody can tell, -1.
        locations: [N] file and row of each doc's line.
        certificates: number of docs of each, as JSON.
        without_likelihood: docs whose choices all have log-likelihood minus infinity, as messages name them.
    """

    def __init__(self, name: str, n_bins: int) -> None:
        self.name = name
        self.columns = Columns(n_bins)
        self.doc_ids, self.confidence, self.correct = array("q"), array("d"), array("b")
        self.clusters = array("Q")
        self.doc_hashes: list[str] = []
        self.prompt_hashes: list[str] = []
        self.kinds: list[str] = []
        self.locations = Locations()
        self.certificates: Counter[str] = Counter()
        self.without_likelihood: list[str] = []
        self._vocabulary = VocabularyCounter(n_bins)
        self._texts: dict[str, str] = {}

    def add(self, file: SamplesFile, rows: Sequence[int], docs: Batch) -> None:
        """Take docs of this task, which stand in these rows of a file."""
        self.columns.add_batch(docs)
        self.doc_ids.frombytes(docs.doc_id.tobytes())
        confidence, correct = answers(docs)
        self.confidence.frombytes(confidence.tobytes())
        self.correct.frombytes(correct.astype(np.int8).tobytes())
        self.clusters.frombytes(docs.cluster.tobytes())
        self.doc_hashes += docs.doc_hash
        self.prompt_hashes += docs.prompt_hash
        self.kinds += docs.kind
        self.locations.add(file, rows)
        for text, n_docs in Counter(docs.certificate).items():
            if text not in self._texts:
                self._texts[text] = json.dumps(json.loads(text), sort_keys=True)
            self.certificates[self._texts[text]] += n_docs
        self.without_likelihood += [str(docs.doc_id[row]) for row in np.flatnonzero(~docs.has_likelihood)]
        is_shown = (docs.n_positions >= 0) & docs.is_sound
        is_shown[list(docs.corpus)] = False
        shown = docs.take(np.flatnonzero(is_shown).tolist())
        self._vocabulary.add(shown.log_probs, shown.large_probs)

    def extend(self, other: Self) -> None:
        """Take the docs of another file of the task."""
        self.columns.extend(other.columns)
        for name in ("doc_ids", "confidence", "correct", "clusters", "doc_hashes", "prompt_hashes", "kinds"):
            getattr(self, name).extend(getattr(other, name))
        self.without_likelihood += other.without_likelihood
        self.locations.extend(other.locations)
        self.certificates += other.certificates
        self._vocabulary.extend(other._vocabulary)

    def twice(self) -> int | None:
        """Return the index of a doc that is there a second time, if any is."""
        if len(set(self.doc_ids)) == len(self):
            return None
        ids = np.array(self.doc_ids, dtype=np.int64)
        found, counts = np.unique(ids, return_counts=True)
        seen = set()
        for i in np.flatnonzero(np.isin(ids, found[counts > 1])).tolist():
            doc = ids[i], self.doc_hashes[i]
            if doc in seen:
                return i
            seen.add(doc)
        return None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What the diagram of Full-ECE shows; None where there are no token distributions."""
        return self._vocabulary.result()

    @property
    def order(self) -> NDArray[np.int64]:
        """[number of docs with a known outcome] where the rows of a metric's arrays stand among the docs added."""
        scored = np.flatnonzero(np.array(self.correct) >= 0)
        return scored[np.argsort(np.array(self.doc_ids, dtype=np.int64)[scored], kind="stable")]

    @property
    def notes(self) -> list[str]:
        """What the task's metrics leave out and why, for people."""
        notes, n, docs = [], len(self.without_likelihood), some(self.without_likelihood, SHOWN)
        if n:
            what = "doc has" if n == 1 else "docs have"
            notes = [f"{self.name}: {n} {what} no finite log-likelihood and no part in calibration: doc {docs}"]
        if not self.has_answers and "corpus" not in self.kinds:
            notes.append(f"{self.name}: no doc has a sound gold label and a confidence")
        return notes

    @property
    def has_answers(self) -> bool:
        """Whether some doc has a sound gold label and a confidence; none of a corpus has."""
        return bool(np.any((np.array(self.correct) >= 0) & ~np.isnan(np.array(self.confidence))))

    def has_confidence(self, doc: int) -> bool:
        """Whether the doc's answer has one: an empty answer has none."""
        return not math.isnan(self.confidence[doc])

    def __len__(self) -> int:
        return len(self.doc_hashes)


class Locations:
    """File and row of docs, in a few bytes each."""

    def __init__(self) -> None:
        self._files: list[SamplesFile] = []
        self._file, self._row = array("L"), array("q")

    def add(self, file: SamplesFile, rows: Sequence[int]) -> None:
        """Take rows of a file."""
        if not self._files or self._files[-1] is not file:
            self._files.append(file)
        self._file.extend([len(self._files) - 1] * len(rows))
        self._row.extend(rows)

    def extend(self, other: Self) -> None:
        """Take another's."""
        self._file.extend(len(self._files) + file for file in other._file)
        self._files += other._files
        self._row.extend(other._row)

    def __getitem__(self, index: int) -> tuple[SamplesFile, int]:
        return self._files[self._file[index]], self._row[index]

    def __iter__(self) -> Iterator[tuple[SamplesFile, int]]:
        return zip(map(self._files.__getitem__, self._file), self._row, strict=True)
