"""The docs of one task of a run, in a few hundred bytes each."""

import json
import math
from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.plots import Vocabulary, VocabularyCounter
from lm_eval_calibration.records import AnswerRecord, ChoicesRecord, Columns
from lm_eval_calibration.results.reading import Sample, SamplesFile


class TaskDocs:
    """The docs of one task, added line by line; what is kept of each is a few hundred bytes.

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
        locations: [N] file and first byte of the doc's line.
    """

    def __init__(self, name: str, n_bins: int) -> None:
        self.name = name
        self.columns = Columns(n_bins)
        self.doc_ids, self.confidence, self.correct = array("q"), array("d"), array("b")
        self.clusters = array("Q")
        self.doc_hashes: list[str] = []
        self.prompt_hashes: list[str] = []
        self.kinds: list[str] = []
        self.locations: list[tuple[SamplesFile, int]] = []
        self.certificates: Counter[str] = Counter()
        self._vocabulary = VocabularyCounter(n_bins)
        self._waiting = False

    def add(self, file: SamplesFile, sample: Sample) -> None:
        """Take a line."""
        record = sample.record
        self.columns.add(record)
        self.doc_ids.append(-1 if record.doc_id is None else record.doc_id)
        is_waiting = isinstance(record, ChoicesRecord) and record.gold is not None
        self._waiting |= is_waiting
        confidence = None if is_waiting else record.confidence  # those of choices come by the thousand
        self.confidence.append(math.nan if confidence is None else confidence)
        self.correct.append(-1 if record.correct is None else record.correct)
        self.clusters.append(0 if record.cluster is None else int(record.cluster, 16))
        self.doc_hashes.append(record.doc_hash)
        self.prompt_hashes.append(record.prompt_hash)
        self.kinds.append(record.kind)
        self.locations.append((file, sample.start))
        self.certificates[json.dumps(record.certificate, sort_keys=True)] += 1
        if isinstance(record, AnswerRecord) and record.log_probs is not None and getattr(record, "gold", 0) is not None:
            self._vocabulary.add(record.log_probs, record.large_probs or ())

    def finish(self) -> None:
        """Fill in what was left for later, once all lines are there."""
        if self._waiting:
            confidence, _ = self.columns.arrays("top_label")
            for i, value in zip(self.order.tolist(), confidence.tolist(), strict=True):
                self.confidence[i] = value

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What the diagram of Full-ECE shows; None where there are no token distributions."""
        return self._vocabulary.result()

    @property
    def order(self) -> NDArray[np.int64]:
        """[number of docs with a known outcome] where the rows of a metric's arrays stand among the docs added."""
        scored = np.flatnonzero(np.array(self.correct) >= 0)
        return scored[np.argsort(np.array(self.doc_ids, dtype=np.int64)[scored], kind="stable")]

    def has_confidence(self, doc: int) -> bool:
        """Whether the doc's answer has one: an empty answer has none."""
        return not math.isnan(self.confidence[doc])

    def __len__(self) -> int:
        return len(self.doc_hashes)
