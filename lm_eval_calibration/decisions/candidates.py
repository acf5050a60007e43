"""What may be in a prediction set: the options of a doc, those in the place of its answer, or its sampled answers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from lm_eval_calibration.decisions.prediction_sets import SCORES, option_scores
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, Probs
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.recalibration.choices import take

LOFREE = "lofree"
ENTROPY_WEIGHT = 0.05
"""Of the normalised entropy, beside a share."""


class Candidates(NamedTuple):
    """Possible answers of each doc.

    Attributes:
        scores: [N, K] nonconformity scores, or N vectors; a doc may have none.
        right: [N] index of the right one, -1 where none of them is: no set of candidates can then hold it.
        are_samples: whether they are sampled answers, whose positions mean nothing.
    """

    scores: Any
    right: IntArray
    are_samples: bool = False

    def take(self, which: IntArray) -> "Candidates":
        """Return those of these docs."""
        return Candidates(take(self.scores, which), self.right[which], self.are_samples)

    @property
    def of_right(self) -> FloatArray:
        """[N] score of the right one; inf where there is none."""
        if isinstance(self.scores, np.ndarray):
            found = self.scores[np.arange(len(self.right)), np.maximum(self.right, 0)]
            return np.where(self.right >= 0, found, np.inf)
        pairs = zip(self.scores, self.right, strict=True)
        return np.array([scores[right] if right >= 0 else np.inf for scores, right in pairs], dtype=np.float64)

    def sets(self, limits: ArrayLike) -> "list[NDArray[np.bool_]] | NDArray[np.bool_]":
        """Return which are in the set of each doc: those whose score is at most the limit, one for each doc."""
        if isinstance(self.scores, np.ndarray):
            return np.asarray(self.scores <= np.asarray(limits)[:, None])
        return [scores <= limit for scores, limit in zip(self.scores, np.asarray(limits), strict=True)]


Known = Mapping[str, Candidates]
"""By the name of their score."""


def of_options(probs: Probs, right: ArrayLike) -> dict[str, Candidates]:
    """Options by LAC, APS and RAPS.

    Args:
        probs: [N, K], or N vectors, of which some may be empty.
        right: [N] position of the right option, -1 where it is none of them.
    """
    return {name: Candidates(option_scores(name, probs), np.asarray(right, dtype=np.int64)) for name in SCORES}


def of_choices(docs: Docs) -> dict[str, Candidates]:
    """The choices of docs; nothing where they have none."""
    probs = docs.forecasts.probs
    return {} if probs is None else of_options(probs, docs.labels)


def of_samples(counts: Sequence[ArrayLike], right: ArrayLike) -> dict[str, Candidates]:
    """Sampled answers, of which only is known how often each was given.

    Args:
        counts: of each doc, how many of its samples give each different answer.
        right: [N] position of the right answer (the most frequent of several), -1 where no sample is right.
    """
    scores = [lofree(np.asarray(one, dtype=np.float64)) for one in counts]
    return {LOFREE: Candidates(scores, np.asarray(right, dtype=np.int64), are_samples=True)}


def lofree(counts: FloatArray) -> FloatArray:
    """1 - F + 0.05 H: F the share of the samples that give the answer, H the entropy of all shares over log m.

    Of m samples; H is 0 where m is 1. Answers that were never sampled have no score. The paper's third term, how
    similar an answer is to the most frequent one, needs an embedding of the texts, which no run logs; its weights are
    tuned on other docs, ours is fixed. Source: Su et al. 2024, arXiv:2403.01216.
    """
    n_samples = counts.sum()
    if not n_samples:
        return counts
    shares = counts / n_samples
    entropy = float(entr(shares).sum()) / np.log(n_samples) if n_samples > 1 else 0.0
    return np.asarray(1 - shares + ENTROPY_WEIGHT * entropy)
