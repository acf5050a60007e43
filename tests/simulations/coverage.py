"""How often the 95% intervals hold the truth, and how often the null test rejects calibration.

    OMP_NUM_THREADS=1 python tests/simulations/coverage.py [--draws 1000] [--docs 200 1000 5000]

Prints the tables of the README, as Markdown: coverage in percent, with the width of ece's interval as a
multiple of 2 x 1.96 standard deviations of ``ece_debiased``; then how often p <= 0.05, in percent.

A population of docs with four choices and a vocabulary of 32 entries is sampled anew for every draw. Its
labels are drawn from a distribution that is the forecast itself (calibrated), flatter (overconfident) or
above and below it in turn (oscillating). The truth is computed from that distribution on ten million docs,
without labels.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from lm_eval_calibration import metrics

CHOICES, VOCABULARY, N_BINS = 4, 32, 10
TRUTH_DOCS = 10_000_000
METRICS = ("ece", "ace", "full_ece", "brier_score", "auroc", "overconfidence")
NULLS = ("ece", "ace", "full_ece", "overconfidence")


class Docs(NamedTuple):
    """Forecasts over the choices, the distribution of the labels, and the mass of each tail entry."""

    probs: np.ndarray
    true_probs: np.ndarray
    tail: np.ndarray


def draw_docs(rng: np.random.Generator, n: int, regime: str) -> Docs:
    """Docs whose confidence is spread over (0.25, 1)."""
    logits = rng.normal(0, 1.6, (n, CHOICES))
    probs = softmax(logits, axis=1)
    true_probs = REGIMES[regime](logits, probs)
    return Docs(probs, true_probs, rng.uniform(0, 0.3, n) / (VOCABULARY - CHOICES))


def _with_accuracy(probs: np.ndarray, accuracy_at: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The top label is right with this probability of its confidence; the others share the rest as before."""
    top, rows = probs.argmax(axis=1), np.arange(len(probs))
    confidence = probs[rows, top]
    accuracy = np.clip(accuracy_at(confidence), 0, 1)
    true_probs = probs * ((1 - accuracy) / np.maximum(1 - confidence, 1e-12))[:, None]
    true_probs[rows, top] = accuracy
    return true_probs


def _waves(confidence: np.ndarray) -> np.ndarray:
    """0.1 above and below the confidence, three times between 0 and 1."""
    return confidence + 0.1 * np.sin(2 * np.pi * 3 * confidence)


REGIMES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "calibrated": lambda logits, probs: probs,
    "overconfident": lambda logits, probs: softmax(logits / 1.5, axis=1),
    "oscillating": lambda logits, probs: _with_accuracy(probs, _waves),
    "overconfident by 0.05": lambda logits, probs: _with_accuracy(probs, lambda c: c - 0.05),
}
COVERED = ("calibrated", "overconfident", "oscillating")


class Sample(NamedTuple):
    """What the metrics take."""

    probs: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    vocabulary: np.ndarray
    targets: np.ndarray

    def arrays(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name == "full_ece":
            return self.vocabulary, self.targets
        if name in ("ace", "brier_score"):
            return self.probs, self.labels
        return self.confidence, self.correct


def draw_sample(rng: np.random.Generator, n: int, regime: str) -> Sample:
    docs = draw_docs(rng, n, regime)
    labels = _draw_labels(rng, docs.true_probs)
    head = 1 - docs.tail * (VOCABULARY - CHOICES)
    tail = np.repeat(docs.tail[:, None], VOCABULARY - CHOICES, axis=1)
    targets = _draw_labels(rng, np.hstack([docs.true_probs * head[:, None], tail]))
    vocabulary = np.hstack([docs.probs * head[:, None], tail])
    confidence, correct = docs.probs.max(axis=1), docs.probs.argmax(axis=1) == labels
    return Sample(docs.probs, labels, confidence, correct, vocabulary, targets)


def _draw_labels(rng: np.random.Generator, probs: np.ndarray) -> np.ndarray:
    drawn = (rng.random((len(probs), 1)) > np.cumsum(probs, axis=1)).sum(axis=1)
    return np.minimum(drawn, probs.shape[1] - 1)


def truths(regime: str, n: int = TRUTH_DOCS) -> dict[str, float]:
    """The population's values, from the distribution of the labels: no label is drawn."""
    parts = [draw_docs(np.random.default_rng(10_000 + seed), n // 10, regime) for seed in range(10)]
    return true_values(Docs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))))


def true_values(docs: Docs) -> dict[str, float]:
    """Every metric of docs whose labels have these probabilities."""
    rows, top = np.arange(len(docs.probs)), docs.probs.argmax(axis=1)
    confidence, accuracy = docs.probs[rows, top], docs.true_probs[rows, top]
    index = metrics.bin_index(confidence, N_BINS)
    return {
        "ece": np.abs(np.bincount(index, accuracy - confidence, N_BINS)).sum() / len(rows),
        "ace": _true_ace(docs),
        "full_ece": _true_full_ece(docs),
        "brier_score": np.mean(np.sum(docs.probs**2 - 2 * docs.probs * docs.true_probs, axis=1)) + 1,
        "auroc": _true_auroc(confidence, accuracy),
        "overconfidence": np.mean(confidence - accuracy),
    }


def _true_ace(docs: Docs) -> float:
    errors = []
    for forecasts, outcomes in zip(docs.probs.T, docs.true_probs.T, strict=True):
        gaps = (outcomes - forecasts)[np.argsort(forecasts)]
        errors += [abs(part.mean()) for part in np.array_split(gaps, N_BINS)]
    return float(np.mean(errors))


def _true_full_ece(docs: Docs) -> float:
    """The tail entries are calibrated, and all lie in bin 0."""
    head = 1 - docs.tail[:, None] * (VOCABULARY - CHOICES)
    gaps = ((docs.true_probs - docs.probs) * head).ravel()
    index = metrics.bin_index((docs.probs * head).ravel(), N_BINS)
    return float(np.abs(np.bincount(index, gaps, N_BINS)).sum() / len(docs.probs))


def _true_auroc(confidence: np.ndarray, accuracy: np.ndarray) -> float:
    right = accuracy[np.argsort(confidence)]
    wrong_below = np.cumsum(1 - right) - (1 - right) / 2
    return float((right * wrong_below).sum() / (right.sum() * (1 - right).sum()))


class Cell(NamedTuple):
    """One metric, regime and number of docs, over the draws."""

    coverage: float
    too_high: float
    too_low: float
    mean_width: float
    mean_value: float


def simulate(regime: str, n: int, truth: dict[str, float], *, draws: int, seed: int) -> dict[str, Cell]:
    """Coverage of every metric's interval; ``debiased`` holds mean and sd of ``ece_debiased``."""
    rng = _generator(seed, n, regime)
    ends: dict[str, list[tuple[float, float, float]]] = {name: [] for name in METRICS}
    debiased = []
    for _ in range(draws):
        sample = draw_sample(rng, n, regime)
        for name in METRICS:
            arrays = sample.arrays(name)
            interval = getattr(metrics, f"{name}_interval")
            ends[name].append((*interval(*arrays), getattr(metrics, name)(*arrays)))
        debiased.append(metrics.ece_debiased(sample.confidence, sample.correct))
    cells = {}
    for name, rows in ends.items():
        low, high, value = np.array(rows).T
        inside = (low <= truth[name]) & (truth[name] <= high)
        misses = np.mean(low > truth[name]), np.mean(high < truth[name])
        cells[name] = Cell(inside.mean(), *misses, np.mean(high - low), value.mean())
    cells["ece_debiased"] = Cell(np.nan, np.nan, np.nan, 2 * 1.96 * np.std(debiased, ddof=1), np.mean(debiased))
    return cells


def rejections(regime: str, n: int, *, draws: int, seed: int) -> dict[str, float]:
    """Share of the draws on which the null test rejects calibration at 5%."""
    rng, rejected = _generator(seed + 1, n, regime), dict.fromkeys(NULLS, 0)
    for _ in range(draws):
        sample = draw_sample(rng, n, regime)
        for name in NULLS:
            rejected[name] += getattr(metrics, f"{name}_null")(*sample.arrays(name)).p_value <= 0.05
    return {name: count / draws for name, count in rejected.items()}


def _generator(seed: int, n: int, regime: str) -> np.random.Generator:
    return np.random.default_rng([seed, n, list(REGIMES).index(regime)])


def print_coverage(sizes: list[int], *, draws: int, seed: int) -> None:
    print(f"| regime | N | {' | '.join(METRICS)} | true ece | mean ece_debiased | width of ece's interval |")
    print("|---|---|" + "---|" * (len(METRICS) + 3))
    for regime in COVERED:
        truth = truths(regime)
        for n in sizes:
            cells = simulate(regime, n, truth, draws=draws, seed=seed)
            covered = " | ".join(f"{100 * cells[name].coverage:.1f}" for name in METRICS)
            debiased = cells["ece_debiased"]
            width = cells["ece"].mean_width / debiased.mean_width
            row = f"| {regime} | {n:,} | {covered} | {truth['ece']:.4f} | {debiased.mean_value:.4f} | {width:.2f} |"
            print(row, flush=True)


def print_rejections(sizes: list[int], *, draws: int, seed: int) -> None:
    print(f"\n| regime | N | {' | '.join(NULLS)} |")
    print("|---|---|" + "---|" * len(NULLS))
    for regime, n in [*(("calibrated", n) for n in sizes), ("overconfident by 0.05", 2000)]:
        shares = rejections(regime, n, draws=draws, seed=seed)
        print(f"| {regime} | {n:,} | " + " | ".join(f"{100 * shares[name]:.1f}" for name in NULLS) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--docs", type=int, nargs="+", default=[200, 1000, 5000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_coverage(options.docs, draws=options.draws, seed=options.seed)
    print_rejections(options.docs, draws=options.draws, seed=options.seed)


if __name__ == "__main__":
    main()
