"""The population's metrics, from many docs and the probabilities of their labels: no label is drawn."""

import numpy as np
from simulations.regimes import N_BINS, Docs

from lm_eval_calibration import metrics


def true_values(docs: Docs, run: int = 0) -> dict[str, float]:
    """Every metric that is simulated, of one of the two runs."""
    confidence, accuracy = docs.confidence[run], docs.accuracy[run]
    index = metrics.bin_index(confidence, N_BINS)
    squares = confidence**2 + accuracy * (1 - 2 * confidence)
    mean = accuracy.mean()
    values = {
        "acc": mean,
        "ece": np.abs(np.bincount(index, accuracy - confidence, N_BINS)).sum() / len(confidence),
        "overconfidence": np.mean(confidence - accuracy),
        "brier_top_label": squares.mean(),
        "skill_score": 1 - squares.mean() / max(mean * (1 - mean), 1e-300),
        "confident_error_rate": _mean(1 - accuracy[confidence >= 0.9]),
        **_areas(confidence, accuracy),
    }
    if docs.probs is not None and docs.true_probs is not None:
        values |= _of_choices(docs.probs[run], docs.true_probs)
    return {name: float(value) for name, value in values.items()}


def _of_choices(probs: np.ndarray, true: np.ndarray) -> dict[str, float]:
    index = metrics.bin_index(probs.ravel(), N_BINS)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = -np.where(true > 0, true * np.log(probs), 0).sum(axis=1)
    return {
        "brier_score": 1 + np.mean(np.sum(probs**2 - 2 * probs * true, axis=1)),
        "nll": loss.mean(),
        "ace": _ace(probs, true),
        "full_ece": np.abs(np.bincount(index, (true - probs).ravel(), N_BINS)).sum() / len(probs),
    }


def _ace(probs: np.ndarray, true: np.ndarray) -> float:
    errors = []
    for forecasts, outcomes in zip(probs.T, true.T, strict=True):
        gaps = (_tie_means(forecasts, outcomes) - forecasts)[np.argsort(forecasts, kind="stable")]
        errors += [abs(part.mean()) for part in np.array_split(gaps, N_BINS)]
    return float(np.mean(errors))


def _areas(confidence: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Areas over the docs from the most confident one down; tied docs have their mean accuracy."""
    right = _tie_means(confidence, accuracy)[np.argsort(-confidence, kind="stable")]
    n = np.arange(1, len(right) + 1)
    precision = (np.cumsum(right) - right / 2) / (n - 0.5)
    pairs = right.sum() * (1 - right).sum()
    return {
        "auroc": _area(confidence, accuracy) / pairs if pairs else np.nan,
        "aurc": np.mean(1 - precision),
        "auprc": (right * precision).sum() / right.sum() if right.any() else np.nan,
    }


def _area(confidence: np.ndarray, accuracy: np.ndarray) -> float:
    """Pairs of a right and a wrong answer of which the right one has more confidence; ties count half."""
    _, group = np.unique(confidence, return_inverse=True)
    right, wrong = np.bincount(group, accuracy), np.bincount(group, 1 - accuracy)
    return float((right * (np.cumsum(wrong) - wrong / 2)).sum())


def _tie_means(forecasts: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    _, group, size = np.unique(forecasts, return_inverse=True, return_counts=True)
    return (np.bincount(group, outcomes) / size)[group]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
