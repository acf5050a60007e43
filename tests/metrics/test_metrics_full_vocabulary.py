"""Full-ECE: the threshold form, its sums, and blocks of rows."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import token_sums

EXACT = {"abs": 1e-12, "rel": 0}


def token_probs(n_tokens, vocab_size, seed=0, scale=4.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (n_tokens, vocab_size))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    targets = np.array([rng.choice(vocab_size, p=p) for p in probs])
    return probs, targets


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 20])
@pytest.mark.parametrize("kept_from", [0.0, 0.05])
def test_threshold_form_is_the_full_form(n_bins, kept_from):
    probs, targets = token_probs(200, 500)
    metrics.check_kept_from(n_bins, kept_from)
    sums = np.array(
        [
            metrics.gap_sums(p[p >= kept_from], p[target], n_bins=n_bins)
            for p, target in zip(probs, targets, strict=True)
        ]
    )
    expected = metrics.position_gap_sums(probs, targets, n_bins=n_bins)
    assert sums.shape == (200, n_bins)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-12)
    value = metrics.full_ece_from_gap_sums(sums, np.ones(200, dtype=int))
    assert value == pytest.approx(metrics.full_ece(probs, targets, n_bins=n_bins), **EXACT)
    assert value == pytest.approx(0, abs=1e-12) if n_bins == 1 else value > 0.001


def test_gap_sums_by_hand():
    np.testing.assert_allclose(
        metrics.gap_sums([0.55, 0.31], 0.31, n_bins=10), [-0.14, 0, 0, 0.69, 0, -0.55, 0, 0, 0, 0], atol=1e-15
    )
    small_target = metrics.gap_sums([0.55, 0.31], 0.02, n_bins=10)
    np.testing.assert_allclose(small_target, [0.86, 0, 0, -0.31, 0, -0.55, 0, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(metrics.gap_sums([], 0.02, n_bins=4), np.zeros(4), atol=0)
    np.testing.assert_allclose(metrics.gap_sums([1.0], 1.0, n_bins=4), np.zeros(4), atol=0)
    np.testing.assert_allclose(metrics.gap_sums([1.0], 0.0, n_bins=4), [1, 0, 0, -1], atol=0)
    np.testing.assert_allclose(metrics.gap_sums([0.5, 0.5], 0.5, n_bins=2), np.zeros(2), atol=0)
    with_small_ones = metrics.gap_sums([0.55, 0.31, 0.09, 0.04], 0.31, n_bins=10)
    assert np.array_equal(with_small_ones, metrics.gap_sums([0.55, 0.31], 0.31, n_bins=10))


@pytest.mark.parametrize("block", [1, 37, 500 * 3, 500 * 7 + 1])
def test_blocks_of_rows_do_not_matter(block, monkeypatch):
    probs, targets = token_probs(50, 500)
    whole = metrics.position_gap_sums(probs, targets)
    monkeypatch.setattr(token_sums, "BLOCK", block)
    assert np.array_equal(whole, metrics.position_gap_sums(probs, targets))
    probs[33, 4] = np.nan
    with pytest.raises(ValueError, match=re.escape("probs[33][4] is nan")):
        metrics.full_ece(probs, targets)
    probs[33] = np.full(500, 0.001)
    with pytest.raises(ValueError, match=re.escape("probs[33] sums to 0.5, not 1")):
        metrics.full_ece(probs, targets)


def test_float32_probabilities_are_summed_in_float64():
    """The trap: 500,000 float32 probabilities added one by one in float32."""
    probs, targets = token_probs(250, 2000, scale=0.1)
    single = probs.astype(np.float32)
    total = np.add.accumulate(single.ravel())[-1]
    assert abs(total / 250 - 1) > 1e-6
    exact = metrics.full_ece(single.astype(np.float64), targets)
    assert metrics.full_ece(single, targets) == exact
    assert exact == pytest.approx(metrics.full_ece(probs, targets), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_bins=st.integers(1, 30), cut=st.integers(0, 30))
def test_shards_merge_to_the_whole(seed, n_bins, cut):
    probs, targets = token_probs(30, 12, seed=seed)
    shards = [slice(0, cut), slice(cut, 30)]
    sums = [metrics.position_gap_sums(probs[s], targets[s], n_bins=n_bins).sum(axis=0) for s in shards if len(probs[s])]
    n_positions = [len(probs[s]) for s in shards if len(probs[s])]
    merged = metrics.full_ece_from_gap_sums(sums, n_positions)
    assert merged == pytest.approx(metrics.full_ece(probs, targets, n_bins=n_bins), **EXACT)
    one_doc = metrics.full_ece_from_gap_sums([np.sum(sums, axis=0)], [30])
    assert one_doc == pytest.approx(merged, **EXACT)
    assert 0 <= merged <= 2


def test_extremes():
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert metrics.full_ece(certain, [0, 1, 2, 0]) == 0
    assert metrics.full_ece(certain, [1, 2, 0, 1]) == 2
    assert metrics.full_ece(np.full((6, 3), 1 / 3), [0, 1, 2, 0, 1, 2]) == pytest.approx(0, abs=1e-15)
    assert metrics.full_ece([[1]], [0]) == 0


def test_kept_from():
    metrics.check_kept_from(20, 0.05)
    metrics.check_kept_from(10, 0.1)
    message = "n_bins=21 needs every probability of at least 1 / 21, but only those of at least 0.05 were kept"
    with pytest.raises(ValueError, match=re.escape(message)):
        metrics.check_kept_from(21, 0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, np.nan], 0.5), "large_probs[1] is nan"),
        (([1.2], 0.5), "large_probs[0] is 1.2, outside [0, 1]"),
        (([0.7, 0.4], 0.4), "large_probs sums to 1.1, more than 1"),
        (([[0.5]], 0.5), "large_probs has shape (1, 1); it must be one-dimensional"),
        (([0.5], 1.5), "target_prob is 1.5, outside [0, 1]"),
        (([0.5], np.nan), "target_prob is nan"),
        (([0.5], "0.5"), "target_prob is '0.5', not a number"),
        (([0.5], True), "target_prob is True, not a number"),
        (([0.5], 0.3), "target_prob is 0.3, at least 1 / 10, but not in large_probs"),
    ],
)
def test_gap_sums_errors(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        metrics.gap_sums(*arguments)


@pytest.mark.parametrize(
    ("sums", "n_positions", "message"),
    [
        ([[0.1, -0.1]], [1, 1], "gap_sums has 1 rows, but n_positions has 2"),
        ([[0.1, -0.1], [0, 0]], [1, 0], "n_positions[1] is 0, not a positive integer"),
        ([[0.1, -0.1]], [1.0], "n_positions must be integers, not float64"),
        ([0.1, -0.1], [1, 1], "gap_sums has shape (2,); it must be [N, n_bins]"),
        ([[0, 0], [0.5, 0.1]], [1, 1], "gap_sums[1] sums to 0.6, not 0"),
        ([[np.nan, 0.1]], [1], "gap_sums[0] sums to nan, not 0"),
        (np.zeros((0, 3)), [], "n_positions is empty"),
    ],
)
def test_sums_errors(sums, n_positions, message):
    for function in (metrics.full_ece_from_gap_sums, metrics.full_ece_from_gap_sums_stderr):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(sums, n_positions)


@pytest.mark.parametrize(
    ("probs", "targets", "message"),
    [
        ([[0.5, 0.5]], [2], "targets[0] is 2, but row 0 has 2 vocabulary entries"),
        ([[0.5, 0.5]], [-100], "targets[0] is -100, but row 0 has 2 vocabulary entries"),
        ([[0.5, 0.5]], [0.0], "targets must be integers, not float64"),
        ([[0.5, 0.5]], [0, 1], "probs has 1 rows, but targets has 2"),
        ([[0.5, 0.5]], [[0]], "targets has shape (1, 1); it must be one-dimensional"),
        ([0.5, 0.5], [0, 1], "probs must be numbers [n_tokens, vocab_size]; it is float64 [2]"),
        ([["a", "b"]], [0], "probs must be numbers [n_tokens, vocab_size]; it is <U1 [1, 2]"),
        ([[1.5, -0.5]], [0], "probs[0][0] is 1.5, outside [0, 1]"),
        ([[0.5, 0.4]], [0], "probs[0] sums to 0.9, not 1"),
        (np.zeros((0, 4)), [], "targets is empty"),
    ],
)
def test_matrix_errors(probs, targets, message):
    for function in (metrics.full_ece, metrics.full_ece_stderr, metrics.position_gap_sums):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(probs, targets)
