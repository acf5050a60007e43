"""How well a model being tuned does on held-out docs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from lm_eval_calibration import metrics

VALIDATED = ("auroc", "ece", "nll", "accuracy_drift")


def validation_metrics(log_odds: Any, answers_right: Any, correct: Any) -> dict[str, float]:
    """Return the metrics of validation, named as in :data:`VALIDATED`.

    Args:
        log_odds: [n] that each answer is right.
        answers_right: [n] whether the model's answers are right now.
        correct: [n] whether the frozen model's answers, about which the query is, were.
    """
    log_odds, correct = np.asarray(log_odds, dtype=np.float64), np.asarray(correct, dtype=np.int64)
    p_true = expit(log_odds)
    return {
        "auroc": metrics.auroc(p_true, correct),
        "ece": metrics.ece(p_true, correct),
        "nll": float(np.mean(np.logaddexp(0, np.where(correct == 1, -log_odds, log_odds)))),
        "accuracy_drift": float(np.mean(answers_right, dtype=np.float64) - np.mean(correct)),
    }


def from_log_entry(entry: Mapping[str, float]) -> dict[str, float]:
    """Return an entry of the Trainer's history without its prefixes."""
    return {"epoch": float(entry.get("epoch") or 0.0), **{name: float(entry[f"eval_{name}"]) for name in VALIDATED}}
