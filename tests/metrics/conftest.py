"""Samples that several test files use."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import softmax

from lm_eval_calibration.metrics import position_gap_sums


class Sample(NamedTuple):
    probs: np.ndarray | list[np.ndarray]
    labels: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def arrays(self, kind):
        """The two arrays of a kind of metric; every doc is one position of the vocabulary."""
        if kind == "full_vocabulary":
            gaps = position_gap_sums(np.array(self.probs), self.labels)
            return gaps, np.ones(len(gaps), dtype=int)
        return (self.confidence, self.correct) if kind == "top_label" else (self.probs, self.labels)


def _sample(probs, labels):
    confidence = np.array([row.max() for row in probs])
    correct = np.array([row.argmax() == label for row, label in zip(probs, labels, strict=True)])
    return Sample(probs, labels, confidence, correct)


@pytest.fixture(scope="session")
def golden():
    """The golden sample of the metric definitions: overconfident, 2,000 docs of 4 choices."""
    rng = np.random.default_rng(0)
    n, k = 2000, 4
    z = rng.normal(0, 1.5, (n, k))
    y = np.array([rng.choice(k, p=np.exp(r) / np.exp(r).sum()) for r in z])
    return _sample(softmax(2 * z, axis=1), y)


@pytest.fixture(scope="session")
def make_sample():
    """Function that makes docs, overconfident ones; ``ties`` rounds the forecasts, ``ragged`` varies K_i."""

    def make(n, *, k=4, seed=0, ties=False, ragged=False):
        rng = np.random.default_rng(seed)
        probs, labels = [], np.empty(n, dtype=np.int64)
        for i in range(n):
            k_i = rng.integers(2, k + 1) if ragged else k
            z = rng.normal(0, 1.5, k_i)
            labels[i] = rng.choice(k_i, p=softmax(z))
            p = rng.multinomial(8, softmax(2 * z)) / 8 if ties else softmax(2 * z)
            probs.append(p)
        return _sample(probs if ragged else np.array(probs), labels)

    return make
