import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_calibration import metrics


def draw(seed: int, spread: float, n: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = np.exp(rng.normal(0, spread, (n, vocab_size)))
    probs /= probs.sum(axis=1, keepdims=True)
    return probs, np.array([rng.choice(vocab_size, p=row) for row in probs])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0.1, 5),
    n=st.integers(1, 20),
    vocab_size=st.integers(3, 50),
    k=st.integers(1, 8),
    n_bins=st.integers(1, 30),
)
def test_bounds_hold_the_value(*, seed: int, spread: float, n: int, vocab_size: int, k: int, n_bins: int) -> None:
    probs, targets = draw(seed, spread, n, vocab_size)
    k = min(k, vocab_size)
    top = -np.sort(-probs, axis=1)[:, :k]
    target_probs = probs[np.arange(n), targets]
    low, high = metrics.full_ece_bounds(list(top), target_probs, top[:, -1], n_bins=n_bins)
    value = metrics.full_ece(probs, targets, n_bins=n_bins)
    assert low - 1e-9 <= value <= high + 1e-9
    assert 0 <= low <= high <= 2 + 1e-9


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_bounds_meet_where_nothing_is_open(n_bins: int) -> None:
    probs, targets = draw(0, 2.0, 50, 40)
    top = -np.sort(-probs, axis=1)
    target_probs = probs[np.arange(50), targets]
    value = metrics.full_ece(probs, targets, n_bins=n_bins)
    bounds = metrics.full_ece_bounds(list(top[:, :n_bins]), target_probs, top[:, n_bins], n_bins=n_bins)
    assert bounds == pytest.approx((value, value), abs=1e-12)


def test_the_top_entry_alone_leaves_room() -> None:
    # One position: 0.6 known, the target is another one with 0.25; the remaining 0.15 may lie in bin 1 or bin 0.
    low, high = metrics.full_ece_bounds([[0.6]], [0.25], [0.6], n_bins=10)
    without = [metrics.full_ece([[0.6, 0.25, *rest]], [1]) for rest in ([0.15], [0.09, 0.06])]
    assert low == pytest.approx(min(without))
    assert high == pytest.approx(max(without))
    assert low <= high


@pytest.mark.parametrize(
    ("large_probs", "target_probs", "complete_from", "said"),
    [
        ([[0.5]], [0.5], [1.5], "complete_from"),
        ([[0.5]], [np.nan], [0.1], "target_probs"),
        ([[0.5], [0.2]], [0.5], [0.1], "large_probs has 2 positions"),
        ([], [], [], "large_probs has 0 positions"),
        ([[0.8, 0.7]], [0.7], [0.1], "sums to 1.5"),
    ],
)
def test_bad_input_is_named(large_probs: list, target_probs: list, complete_from: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.full_ece_bounds(large_probs, target_probs, complete_from)
