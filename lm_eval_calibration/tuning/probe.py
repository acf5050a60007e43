"""A linear map of the last hidden state, at the end of the query, to the log-odds that the answer is right."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.tuning.examples import Collator, Example, Examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.loss import predict
from lm_eval_calibration.tuning.settings import Protocol
from lm_eval_calibration.tuning.validation import validation_metrics

FILE = "probe.json"

STRENGTHS = tuple(np.logspace(-5, 1, 13).tolist())
"""Inverse regularisation strengths; cross-validation selects one."""


class Probe(torch.nn.Module):
    """w · h + b, with [hidden_size] weights w and bias b."""

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.bias = torch.nn.Parameter(torch.tensor(float(bias), device=weight.device))

    @classmethod
    def untrained(cls, hidden_size: int, device: torch.device) -> "Probe":
        """Return a probe by which everything is right with probability 1/2."""
        return cls(torch.zeros(hidden_size, device=device), 0.0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n] log-odds from [n, hidden_size] hidden states."""
        log_odds: torch.Tensor = hidden.float() @ self.weight + self.bias
        return log_odds

    def write(self, directory: Path) -> None:
        """Save it as JSON."""
        content = {
            "what": "log-odds that the answer is right = weight · h + bias; h: what the output layer gets at the "
            "query's last token",
            "weight": self.weight.detach().cpu().tolist(),
            "bias": float(self.bias.detach()),
        }
        write_whole(directory / FILE, json.dumps(content) + "\n")


def fit(hidden: NDArray[np.float64], correct: NDArray[np.int64], seed: int) -> Probe:
    """Fit by logistic regression on standardised hidden states; cross-validation selects the regularisation.

    Args:
        hidden: [n, hidden_size].
        correct: [n] 0 or 1, both among them.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_folds = max(2, min(5, int(np.bincount(correct, minlength=2).min())))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="neg_log_loss", cv=folds)
    scaler, regression = (step for _, step in search.fit(hidden, correct).best_estimator_.steps)
    weight = regression.coef_.ravel() / scaler.scale_
    bias = float(regression.intercept_[0] - weight @ scaler.mean_)
    return Probe(torch.tensor(weight, dtype=torch.float32), bias)


def read_out(
    forward: Forward, model: Any, examples: Sequence[Example], batch_size: int, pad_token_id: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Put the query about each of its answers to a model.

    Returns:
        [n, hidden_size] inputs of the output layer at the end of the query; [n] whether the answers are right; [n]
        their log-odds by the query.
    """
    batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    collate = Collator(pad_token_id)
    model.eval()
    for start in tqdm(range(0, len(examples), batch_size), desc="Reading hidden states"):
        batch = {k: v.to(model.device) for k, v in collate(examples[start : start + batch_size]).items()}
        with torch.no_grad():
            outputs = forward(model, batch)
        log_odds = predict(batch, outputs.query, outputs.choices).log_odds
        batches.append((outputs.hidden.float(), batch["labels"], log_odds))
    hidden, correct, odds = (torch.cat(part).cpu().numpy() for part in zip(*batches, strict=True))
    return hidden.astype(np.float64), correct, odds.astype(np.float64)


def train_probe(
    model: Any, forward: Forward, examples: Examples, protocol: Protocol, directory: Path
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Fit a probe to the frozen model's hidden states, save it in a folder; return validations and details."""
    (hidden, correct, _), (held_out, held_out_correct, untuned) = (
        read_out(forward, model, part, protocol.batch_size, examples.pad_token_id)
        for part in (examples.fit, examples.held_out)
    )
    probe = fit(hidden, correct, protocol.seed)
    probe.write(directory)
    with torch.no_grad():
        log_odds = probe(torch.from_numpy(held_out)).numpy()
    validations = [
        {"epoch": float(epoch), **validation_metrics(odds, held_out_correct, held_out_correct)}
        for epoch, odds in enumerate((untuned, log_odds))
    ]
    return validations, {"loss": "logistic regression, regularisation chosen by folds"}
