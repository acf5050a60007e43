"""The loss against its definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
from lm_eval_calibration.tuning.loss import (
    cross_entropy,
    jensen_shannon,
    log_odds,
    mean_divergence,
    option_log_likelihoods,
)

RNG = np.random.default_rng(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_divergence_is_scipy_s_squared_distance() -> None:
    one, other = RNG.normal(0, 3, (2, 20, 50)).astype(np.float32)
    expected = jensenshannon(softmax(one.astype(float)), softmax(other.astype(float)), axis=1) ** 2
    found = jensen_shannon(torch.tensor(one), torch.tensor(other)).numpy()
    assert found == pytest.approx(expected, abs=1e-6)


def test_divergence_lies_between_0_and_log_2() -> None:
    far = torch.tensor([[80.0, -80.0], [1.0, 2.0]]), torch.tensor([[-80.0, 80.0], [1.0, 2.0]])
    assert jensen_shannon(*far).tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_divergence_of_examples_counts_each_example_once() -> None:
    one, other = (torch.tensor(RNG.normal(0, 2, (3, 7)), dtype=torch.float32) for _ in range(2))
    each = jensen_shannon(one, other)
    found = mean_divergence(one, other, torch.tensor([0, 0, 1]), 2)
    assert float(found) == pytest.approx(float((each[0] + each[1]) / 2 + each[2]) / 2, abs=1e-7)


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("nested", [False, True])
def test_log_odds_are_those_of_the_judging_run(name: str, nested: bool) -> None:
    query = QUERIES[name]
    for true in (-0.5, -3.0, -9.0):
        said = [0.0, 0.0]
        said[query.true], said[1 - query.true] = true, -0.25
        p = query.p_true(said, nested=nested)
        found = log_odds(torch.tensor([true]), torch.tensor([-0.25]), torch.tensor([nested]))
        assert float(found) == pytest.approx(math.log(p / (1 - p)), rel=1e-5)


def test_log_odds_of_a_certain_nested_continuation_are_finite_and_have_a_gradient_below() -> None:
    true = torch.tensor([-0.2, -0.3], requires_grad=True)
    found = log_odds(true, torch.tensor([-0.2, -0.2]), torch.tensor([True, True]))
    cross_entropy(found, torch.tensor([1, 1])).backward()
    assert torch.isfinite(found).all()
    assert true.grad is not None
    assert true.grad[1] < 0


def test_cross_entropy_is_the_mean_negative_log_likelihood() -> None:
    odds, labels = RNG.normal(0, 2, 30), RNG.integers(0, 2, 30)
    p = 1 / (1 + np.exp(-odds))
    expected = -np.mean(np.log(np.where(labels == 1, p, 1 - p)))
    assert float(cross_entropy(torch.tensor(odds), torch.tensor(labels))) == pytest.approx(expected, rel=1e-6)


def test_log_likelihoods_of_options_are_sums_over_their_tokens() -> None:
    logits = torch.tensor(RNG.normal(0, 2, (5, 11)), dtype=torch.float32)
    # Row, position, token, example, option: example 0 has options of 1 and 2 tokens, example 1 one of 2 tokens.
    spots = torch.tensor([[0, 3, 4, 0, 0], [0, 3, 5, 0, 1], [0, 4, 6, 0, 1], [1, 2, 7, 1, 0], [1, 3, 8, 1, 0]])
    log_probs = np.log(softmax(logits.numpy().astype(float)))
    expected = [
        [log_probs[0, 4], log_probs[1, 5] + log_probs[2, 6]],
        [log_probs[3, 7] + log_probs[4, 8], -math.inf],
    ]
    found = option_log_likelihoods(logits, spots, 2).numpy()
    assert found == pytest.approx(np.array(expected), abs=1e-5)
