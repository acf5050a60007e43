"""The loss: wrong probabilities of being right, and any change of the answers themselves."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

Batch = Mapping[str, torch.Tensor]


class Predictions(NamedTuple):
    """What a model predicts for a batch.

    Attributes:
        log_odds: [n] that each answer is right.
        answers_right: [n] whether the most probable choice is the gold one; 0 where there are no choices in the batch.
    """

    log_odds: torch.Tensor
    answers_right: torch.Tensor


def predict(batch: Batch, query_logits: torch.Tensor, choice_logits: torch.Tensor) -> Predictions:
    """Return how likely the answers are right by the query, and whether the model's choices are now."""
    n = len(batch["labels"])
    log_likelihoods = option_log_likelihoods(query_logits, batch["query"], n)
    true, false = (log_likelihoods.gather(1, which[:, None]).squeeze(1) for which in (batch["true"], 1 - batch["true"]))
    right = torch.zeros(n, device=true.device)
    if len(batch["choices"]):
        right = (option_log_likelihoods(choice_logits, batch["choices"], n).argmax(1) == batch["gold"]).float()
    return Predictions(log_odds(true, false, batch["nested"]), right)


def option_log_likelihoods(logits: torch.Tensor, targets: torch.Tensor, n_examples: int) -> torch.Tensor:
    """[n_examples, n_options] log-likelihood of each continuation, -inf where an example has no such option.

    Args:
        logits: [n_targets, vocab_size].
        targets: [n_targets, 5] row, position, token, example, option.
        n_examples: rows of the result.
    """
    n_options = int(targets[:, 4].max()) + 1
    log_probs = log_softmax(logits.float(), -1).gather(1, targets[:, 2:3]).squeeze(1)
    cell = targets[:, 3] * n_options + targets[:, 4]
    sums = _sums(log_probs, cell, n_examples * n_options)
    is_there = torch.zeros_like(sums).index_fill(0, cell, 1.0) > 0
    return sums.masked_fill(~is_there, float("-inf")).reshape(n_examples, n_options)


def log_odds(true: torch.Tensor, false: torch.Tensor, nested: torch.Tensor) -> torch.Tensor:
    """[n] log(p / (1 - p)) of P(true) from the log-likelihoods of the query's two continuations.

    P(true) is their softmax; where the true one's tokens begin with the false one's (``nested``), it is their ratio
    (see :meth:`lm_eval_calibration.tasks.confidences.p_true_query.Query.p_true`).
    """
    difference = true - false
    log_p = difference.clamp(max=-1e-6)  # of the ratio; 1 itself has no log-odds
    return torch.where(nested.bool(), log_p - torch.log(-torch.expm1(log_p)), difference)


def cross_entropy(log_odds_of_right: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the labels, in nats."""
    return binary_cross_entropy_with_logits(log_odds_of_right, labels.float())


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """[n] Jensen-Shannon divergence of distributions, in nats (0 to log 2).

    (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2.

    Args:
        one: [n, vocab_size] logits of p.
        other: [n, vocab_size] logits of q.
    """
    log_p, log_q = log_softmax(one.float(), -1), log_softmax(other.float(), -1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, device=log_p.device))
    half = [(log_x.exp() * (log_x - log_m)).sum(-1) for log_x in (log_p, log_q)]
    return (half[0] + half[1]) / 2


def mean_divergence(one: torch.Tensor, other: torch.Tensor, example: torch.Tensor, n_examples: int) -> torch.Tensor:
    """Jensen-Shannon divergence, averaged over the positions of each example and then over examples.

    Args:
        one: [n, vocab_size] logits.
        other: [n, vocab_size] logits.
        example: [n] which example each position is of.
        n_examples: number of examples; one without positions (an empty answer) diverges by 0.
    """
    divergences = jensen_shannon(one, other)
    counts = _sums(torch.ones_like(divergences), example, n_examples)
    return (_sums(divergences, example, n_examples) / counts.clamp(min=1)).mean()


def answers_stay(one: torch.Tensor, other: torch.Tensor, example: torch.Tensor, n_examples: int) -> torch.Tensor:
    """[n_examples] 1 where the most probable token is the same at every position of the answer, else 0.

    Arguments as of :func:`mean_divergence`.
    """
    differs = (one.argmax(-1) != other.argmax(-1)).float()
    return (_sums(differs, example, n_examples) == 0).float()


def _sums(values: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
    """[n] sums of the values with each index."""
    return torch.zeros(n, device=values.device).index_add(0, index, values)
