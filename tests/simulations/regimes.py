"""Regimes drawn at random from a described space: populations of docs whose true metrics are known.

A regime is one draw from each of these:

- law of the confidence: spread over (1/K, 1), a Beta, near 1 (1 - 10^-U), near chance, near 0 (only where docs have no
  choices), words (0.5, 0.6 ... 0.99, 1) and shares of ten votes
- accuracy at a confidence: calibrated, or shifted and stretched on the logit scale, or waves, some within one bin
- 2 to 10 choices, with the other choices' probabilities from a Dirichlet distribution
- number of docs, log-uniform; clusters of equal or unequal size with an intraclass correlation, or none
- a second run on the same docs: sharper or flatter, with noise of its own

Labels are drawn from true probabilities, so the population's metrics are computed without labels.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr
from scipy.stats import beta

N_BINS = 10
WORDS = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
LAWS = ("spread", "beta", "near 1", "near chance", "near 0", "words", "votes")
ONLY_CONFIDENCES = ("near 0", "votes")
OTHER_ANSWERS = 0.8
"""Correlation of the latent variables that make two runs' answers right, where docs have no choices."""

SHAPES = ("calibrated", "logistic", "waves", "within bins")


class Regime(NamedTuple):
    """A population and a number of docs to draw from it.

    ``accuracy`` holds shift, slope, size and frequency of the miscalibration. ``icc`` is that of a latent normal
    variable that says both how sure the model is of a doc and whether its answer is right; 0 without clusters.
    """

    n_docs: int
    n_choices: int
    law: str
    law_shape: tuple[float, float]
    shape: str
    accuracy: tuple[float, float, float, float]
    sharpness: float
    noise: float
    n_clusters: int = 0
    equal_clusters: bool = True
    icc: float = 0.0

    def __str__(self) -> str:
        clusters = f", {self.n_clusters} clusters, ICC {self.icc:.2f}" if self.n_clusters else ""
        return f"{self.law} / {self.shape}, N = {self.n_docs:,}, K = {self.n_choices}{clusters}"


class Docs(NamedTuple):
    """Docs before their labels are drawn: forecasts of two runs, and how probable each answer is to be right.

    ``probs`` [2, N, K] and ``true_probs`` [N, K] are None where docs have a confidence only.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    cluster: np.ndarray
    probs: np.ndarray | None
    true_probs: np.ndarray | None


class Sample(NamedTuple):
    """Docs with outcomes: ``correct`` [2, N] of both runs, ``labels`` [N]."""

    docs: Docs
    correct: np.ndarray
    labels: np.ndarray | None


def draw_regime(rng: np.random.Generator, *, n_min: int, n_max: int, clustered: bool = False) -> Regime:
    """One regime of the space."""
    n_docs = int(np.exp(rng.uniform(np.log(n_min), np.log(n_max + 1))))
    regime = Regime(
        n_docs=n_docs,
        n_choices=int(rng.integers(2, 11)),
        law=str(rng.choice(LAWS)),
        law_shape=(float(np.exp(rng.uniform(-1, 3.2))), float(np.exp(rng.uniform(-1, 1.5)))),
        shape=str(rng.choice(SHAPES, p=[0.4, 0.3, 0.15, 0.15])),
        accuracy=(
            float(rng.normal(0, 1)),
            float(rng.uniform(0.2, 1.5)),
            float(rng.uniform(0.02, 0.15)),
            float(rng.integers(1, 6)),
        ),
        sharpness=float(np.exp(rng.normal(0, 0.3))),
        noise=float(rng.choice([0.0, 0.3])),
    )
    if not clustered:
        return regime
    n_clusters = int(np.exp(rng.uniform(np.log(10), np.log(501))))
    return regime._replace(
        n_docs=max(n_docs, 2 * n_clusters),
        n_clusters=n_clusters,
        equal_clusters=bool(rng.integers(2)),
        icc=float(rng.uniform(0.05, 0.5)),
    )


def draw_docs(rng: np.random.Generator, regime: Regime, n_docs: int) -> Docs:
    """Docs of the population."""
    cluster = _clusters(rng, regime, n_docs)
    confidence = _confidence(regime, ndtr(_latent(rng, regime, cluster)))
    accuracy = true_accuracy(regime, confidence)
    if regime.law in ONLY_CONFIDENCES:
        noise = regime.noise * rng.normal(size=n_docs)
        other = expit(regime.sharpness * logit(np.clip(confidence, 1e-9, 1 - 1e-9)) + noise)
        return Docs(np.stack([confidence, other]), np.stack([accuracy, accuracy]), cluster, None, None)
    share = _shares_of_the_others(rng, confidence, regime.n_choices)
    probs = np.concatenate([confidence[:, None], (1 - confidence)[:, None] * share], axis=1)
    true = np.concatenate([accuracy[:, None], (1 - accuracy)[:, None] * share], axis=1)
    with np.errstate(divide="ignore"):
        logits = regime.sharpness * np.log(probs) + regime.noise * rng.normal(size=probs.shape)
    other = np.exp(logits - logits.max(axis=1, keepdims=True))
    other /= other.sum(axis=1, keepdims=True)
    order = rng.permuted(np.tile(np.arange(regime.n_choices), (n_docs, 1)), axis=1)
    probs, other, true = (np.take_along_axis(array, order, axis=1) for array in (probs, other, true))
    both = np.stack([probs, other])
    rows = np.arange(n_docs)
    accuracies = np.stack([true[rows, one.argmax(axis=1)] for one in both])
    return Docs(both.max(axis=2), accuracies, cluster, both, true)


def draw_sample(rng: np.random.Generator, regime: Regime, n_docs: int | None = None) -> Sample:
    """Docs with outcomes. Within a cluster one latent variable makes answers right or wrong together."""
    docs = draw_docs(rng, regime, regime.n_docs if n_docs is None else n_docs)
    latent, rows = _latent(rng, regime, docs.cluster), np.arange(len(docs.cluster))
    if docs.true_probs is None or docs.probs is None:
        other = OTHER_ANSWERS * latent + np.sqrt(1 - OTHER_ANSWERS**2) * rng.normal(size=len(rows))
        return Sample(docs, np.stack([ndtr(latent), ndtr(other)]) < docs.accuracy, None)
    top = docs.probs[0].argmax(axis=1)
    others = docs.true_probs.copy()
    others[rows, top] = 0
    reached = np.cumsum(others, axis=1)
    wrong = ((rng.random(len(rows)) * reached[:, -1])[:, None] >= reached).sum(axis=1)
    right = ndtr(latent) < docs.accuracy[0]
    labels = np.where(right, top, np.minimum(wrong, regime.n_choices - 1))
    return Sample(docs, docs.probs.argmax(axis=2) == labels, labels)


def true_accuracy(regime: Regime, confidence: np.ndarray) -> np.ndarray:
    """Probability that an answer of this confidence is right."""
    shift, slope, size, waves = regime.accuracy
    if regime.shape == "calibrated":
        return confidence
    if regime.shape == "logistic":
        return expit(shift + slope * logit(np.clip(confidence, 1e-9, 1 - 1e-9)))
    frequency = waves if regime.shape == "waves" else waves * N_BINS
    return np.clip(confidence + size * np.sin(2 * np.pi * frequency * confidence), 0, 1)


def _clusters(rng: np.random.Generator, regime: Regime, n_docs: int) -> np.ndarray:
    if not regime.n_clusters:
        return np.arange(n_docs)
    n_clusters = max(2, round(regime.n_clusters * n_docs / regime.n_docs))
    if regime.equal_clusters:
        return np.arange(n_docs) % n_clusters
    weight = np.exp(rng.normal(0, 1, n_clusters))
    return np.sort(rng.choice(n_clusters, size=n_docs, p=weight / weight.sum()))


def _latent(rng: np.random.Generator, regime: Regime, cluster: np.ndarray) -> np.ndarray:
    """Standard normal numbers that are correlated within clusters."""
    shared = rng.normal(size=int(cluster.max()) + 1)[cluster]
    return np.sqrt(regime.icc) * shared + np.sqrt(1 - regime.icc) * rng.normal(size=len(cluster))


def _confidence(regime: Regime, uniform: np.ndarray) -> np.ndarray:
    floor = 1.01 / regime.n_choices
    a, b = regime.law_shape
    laws = {
        "spread": lambda u: floor + (1 - floor) * u,
        "beta": lambda u: floor + (1 - floor) * beta.ppf(u, a, b),
        "near 1": lambda u: 1 - np.minimum(1 - floor, 10.0 ** -(1 + 5 * u)),
        "near chance": lambda u: floor + (1 - floor) * beta.ppf(u, b, a + 4),
        "near 0": lambda u: 10.0 ** -(4 * u),
        "words": lambda u: WORDS[np.minimum(np.searchsorted(_shares_of_words(a), u), 9)],
        "votes": lambda u: np.clip(np.round(10 * beta.ppf(u, 1 + a / 4, 1)) / 10, 0.1, 1),
    }
    return laws[regime.law](uniform)


def _shares_of_words(a: float) -> np.ndarray:
    """Share of the docs with at most each of the ten words."""
    share = np.cumsum(beta.pdf((np.arange(10) + 0.5) / 10, 1 + a / 4, 1.2))
    return share / share[-1]


def _shares_of_the_others(rng: np.random.Generator, confidence: np.ndarray, n_choices: int) -> np.ndarray:
    """How the other choices share what the first leaves: none gets more than the first has."""
    share = rng.dirichlet(np.ones(n_choices - 1), size=len(confidence))
    room = 0.999 * confidence / np.maximum(1 - confidence, 1e-300)
    even = np.full(n_choices - 1, 1 / (n_choices - 1))
    excess = np.maximum(share.max(axis=1) - room, 0)
    mix = np.clip(excess / np.maximum(share.max(axis=1) - even[0], 1e-12), 0, 1)[:, None]
    return (1 - mix) * share + mix * even
