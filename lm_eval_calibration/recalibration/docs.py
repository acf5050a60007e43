"""Docs as arrays, and the forecasts that the model or a map makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics import Metric, Run
from lm_eval_calibration.metrics.fields import Fields
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, Probs, check_labels, check_top_label
from lm_eval_calibration.recalibration.choices import flatten, softmax, stacked, take, unflatten
from lm_eval_calibration.recalibration.multicalibrated import Grouped
from lm_eval_calibration.recalibration.recalibrator import Takes
from lm_eval_calibration.records.clusters import IntIds, clusters_of, drawn_as


@dataclass(frozen=True)
class Forecasts:
    """Forecasts for N docs, and their outcomes.

    Attributes:
        confidence: [N] probability of the answer.
        correct: [N] 1 where the answer is right.
        labels: [N] position of the gold choice; without choices the same as ``correct``.
        probs: [N, K] or N vectors; None where only the answer's confidence is known.
        cluster_ids: [N] of what each doc was drawn with, 0 for nothing known; None where that is so of all.
    """

    confidence: FloatArray
    correct: IntArray
    labels: IntArray
    probs: Any = None
    cluster_ids: IntIds | None = None

    def take(self, which: IntArray) -> Self:
        """Return the forecasts of these docs."""
        probs = None if self.probs is None else take(self.probs, which)
        ids = None if self.cluster_ids is None else self.cluster_ids[which]
        return type(self)(self.confidence[which], self.correct[which], self.labels[which], probs, ids)

    @property
    def cluster(self) -> IntIds | None:
        """[N] what metrics take as ``cluster``."""
        return None if self.cluster_ids is None else clusters_of(self.cluster_ids)

    def value(self, metric: Metric, n_bins: int) -> float:
        """Return a metric of the kind "top_label" or, where there are choices, "choices"."""
        arrays = (self.confidence, self.correct) if metric.kind == "top_label" else (self.probs, self.labels)
        return metric.value(*arrays, **({"n_bins": n_bins} if metric.takes_n_bins else {}))

    @property
    def run(self) -> Run:
        """The arrays as comparisons take them."""
        if self.probs is None:
            return Run(self.confidence, self.correct)
        return Run(self.confidence, self.correct, self.probs, self.labels)

    def equals(self, other: "Forecasts") -> bool:
        """Whether other forecasts of the same docs say the same."""
        if (self.probs is None) != (other.probs is None) or not np.array_equal(self.confidence, other.confidence):
            return False
        if isinstance(self.probs, np.ndarray) and isinstance(other.probs, np.ndarray):
            return np.array_equal(self.probs, other.probs)
        pairs = () if self.probs is None else zip(self.probs, other.probs, strict=True)
        return all(np.array_equal(one, another) for one, another in pairs)


@dataclass(frozen=True)
class Docs:
    """Docs as a model answered them: by choosing, or (:meth:`of_answers`) in its own words.

    Attributes:
        log_likelihoods: [N, K] of the choices, or N vectors of different lengths, in nats; None where there are none.
        labels: [N] position of the gold choice; without choices 1 where the answer is right, else 0.
        doc_hashes: [N] what a doc is known by in every run: equal docs have equal hashes.
        groups: [N] name of the group (task, subject, site ...) of each doc; "" for all where there are none.
        confidence: [N] of the answers where there are no choices; else None.
        cluster_ids: [N] of what each doc was drawn with, 0 for nothing known; None where that is so of all.
        fields: name to field of the docs, which make groups that may overlap; empty where none were read.
    """

    log_likelihoods: Any
    labels: IntArray
    doc_hashes: NDArray[np.str_]
    groups: NDArray[np.str_]
    confidence: FloatArray | None = None
    cluster_ids: IntIds | None = None
    fields: Fields = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        log_likelihoods: Probs,
        labels: ArrayLike,
        doc_hashes: Sequence[str],
        groups: Sequence[str] | None = None,
        cluster_ids: IntIds | None = None,
    ) -> Self:
        """Return docs made of lists; raise ValueError where they differ in length."""
        known_by = _known_by(doc_hashes, groups)
        docs = cls(
            stacked(log_likelihoods),
            check_labels("labels", labels),
            *known_by,
            cluster_ids=_some(cluster_ids, doc_hashes),
        )
        lengths = len(docs.log_likelihoods), len(docs.labels), *map(len, known_by)
        if len(set(lengths)) != 1:
            raise ValueError(f"log_likelihoods, labels, doc_hashes and groups have {lengths} rows")
        return docs

    @classmethod
    def of_answers(
        cls,
        confidence: ArrayLike,
        correct: ArrayLike,
        doc_hashes: Sequence[str],
        groups: Sequence[str] | None = None,
        cluster_ids: IntIds | None = None,
    ) -> Self:
        """Return docs without choices, as generated answers are; raise ValueError as metrics do for such arrays."""
        conf, hit = check_top_label(confidence, correct)
        known_by = _known_by(doc_hashes, groups)
        lengths = len(conf), *map(len, known_by)
        if len(set(lengths)) != 1:
            raise ValueError(f"confidence, doc_hashes and groups have {lengths} rows")
        return cls(None, hit.astype(np.int64), *known_by, conf, _some(cluster_ids, doc_hashes))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: IntArray) -> Self:
        """Return these docs."""
        rows = None if self.log_likelihoods is None else take(self.log_likelihoods, which)
        confidence = None if self.confidence is None else self.confidence[which]
        ids = None if self.cluster_ids is None else self.cluster_ids[which]
        fields = {name: of_docs.take(which) for name, of_docs in self.fields.items()}
        return type(self)(rows, self.labels[which], self.doc_hashes[which], self.groups[which], confidence, ids, fields)

    def with_fields(self, fields: Fields) -> Self:
        """Return the docs with these fields of theirs."""
        return replace(self, fields=fields)

    def in_one_group(self) -> Self:
        """Return the docs without their groups."""
        return replace(self, groups=np.full(len(self), ""))

    @property
    def drawn_as(self) -> NDArray[np.str_]:
        """[N] what folds are made of: a doc's cluster, or the doc itself."""
        return drawn_as(self.doc_hashes, self.cluster_ids)

    @cached_property
    def answers(self) -> IntArray:
        """[N] position of the most probable choice, the first of equals, as the harness counts."""
        if isinstance(self.log_likelihoods, np.ndarray):
            return np.asarray(self.log_likelihoods.argmax(axis=1))
        return np.array([int(np.argmax(row)) for row in self.log_likelihoods])

    @cached_property
    def forecasts(self) -> Forecasts:
        """What the model itself says."""
        if self.confidence is not None:
            return self.with_confidence(self.confidence)
        choices = flatten(self.log_likelihoods)
        return self.with_probs(unflatten(softmax(choices), choices))

    def with_probs(self, probs: Any) -> Forecasts:
        """Return forecasts with these choice probabilities; the answers are the model's.

        Raises:
            AssertionError: an answer is no longer the most probable choice.
        """
        if isinstance(probs, np.ndarray):
            confidence, of_answer = probs.max(axis=1), probs[np.arange(len(self)), self.answers]
        else:
            confidence = np.array([row.max() for row in probs])
            of_answer = np.array([row[answer] for row, answer in zip(probs, self.answers, strict=True)])
        if not np.array_equal(of_answer, confidence):  # accuracy would change, which no temperature can do
            raise AssertionError(f"doc {np.flatnonzero(of_answer != confidence)[0]}: the answer changed")
        return Forecasts(confidence, self._correct, self.labels, probs, self.cluster_ids)

    def with_confidence(self, confidence: FloatArray) -> Forecasts:
        """Return forecasts of the answers alone."""
        return Forecasts(confidence, self._correct, self.labels, cluster_ids=self.cluster_ids)

    def fit_arguments(self, takes: Takes) -> tuple[Any, Any]:
        """Return what a map of this kind is fitted on; raise ValueError for choices where there are none."""
        if takes == "choices" and self.log_likelihoods is None:
            raise ValueError(
                "generated answers have no choices whose log-likelihoods a temperature could divide: "
                "platt, isotonic, histogram and beta map their confidence"
            )
        if takes == "choices":
            return self.log_likelihoods, self.labels
        if takes == "groups":
            return Grouped(self.forecasts.confidence, self.fields), self.forecasts.correct
        return self.forecasts.confidence, self.forecasts.correct

    @cached_property
    def _correct(self) -> IntArray:
        if self.log_likelihoods is None:
            return self.labels
        return np.asarray(self.answers == self.labels, dtype=np.int64)


def _known_by(doc_hashes: Sequence[str], groups: Sequence[str] | None) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Hashes and names of groups as arrays."""
    hashes = np.asarray(doc_hashes, dtype=np.str_)
    return hashes, np.asarray([""] * len(hashes) if groups is None else groups, dtype=np.str_)


def _some(cluster_ids: IntIds | None, doc_hashes: Sequence[str]) -> IntIds | None:
    """Ids of clusters, one for each doc; None where no doc has one."""
    if cluster_ids is None or not np.any(cluster_ids):
        return None
    if len(cluster_ids) != len(doc_hashes):
        raise ValueError(f"cluster_ids has {len(cluster_ids)} rows, but doc_hashes has {len(doc_hashes)}")
    return cluster_ids
