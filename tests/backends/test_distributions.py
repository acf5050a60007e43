import numpy as np
import pytest
import torch

from lm_eval_calibration.backends import MIN_LARGE_PROB
from lm_eval_calibration.backends.hf import distributions
from lm_eval_calibration.backends.hf.distributions import one_pass, summarize


def naive(logits: torch.Tensor) -> np.ndarray:
    z = logits.to(torch.float64).numpy()
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def peaked(n: int, v: int, scale: float = 4.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(n, v, generator=torch.Generator().manual_seed(n * v)) * scale).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 200, 1 << 22])
def test_equals_the_plain_float64_softmax(dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_BLOCK_ELEMENTS", block)
    logits = peaked(7, 90, dtype=dtype)
    rows, tokens = torch.tensor([0, 3, 3, 6]), torch.tensor([5, 0, 89, 17])
    found = summarize(logits, rows, tokens)
    probs = naive(logits)
    np.testing.assert_allclose(found.target_log_probs, np.log(probs[rows, tokens]), atol=2e-6)
    assert found.target_is_greedy.tolist() == (probs.argmax(-1)[rows] == tokens.numpy()).tolist()
    for row, large in zip(probs, found.large_probs, strict=True):
        expected = np.sort(row[row >= MIN_LARGE_PROB])
        got = np.sort(large)[len(large) - len(expected) :]
        np.testing.assert_allclose(got, expected, atol=1e-6)
        # Nothing that needs a bin of its own is missing, and what is surplus is only a hair below the threshold.
        assert (np.sort(large)[: len(large) - len(expected)] >= 0.98 * MIN_LARGE_PROB).all()


@pytest.mark.parametrize("offset", [0.0, -100.0, 1000.0, 10000.0])
def test_log_likelihoods_are_the_stock_run_s_at_a_large_vocabulary(offset: float) -> None:
    logits = peaked(40, 50_000) + offset
    rows, tokens = torch.arange(40), torch.arange(40) * 7
    found = summarize(logits, rows, tokens)
    np.testing.assert_allclose(found.target_stock_log_probs, logits.log_softmax(-1)[rows, tokens], rtol=2e-7, atol=2e-6)
    np.testing.assert_allclose(found.target_log_probs, logits.double().log_softmax(-1)[rows, tokens], atol=1e-6)


def test_an_entry_on_a_bin_s_edge_is_hit_and_mass_of_the_same_bin() -> None:
    logits = torch.full((1, 300), -1e4)
    logits[0, :2] = 60.0  # two entries of exactly 0.5: a perfect tie
    found = summarize(logits, torch.tensor([0]), torch.tensor([1]))
    assert np.exp(found.target_log_probs[0]) == found.large_probs[0][0] == found.large_probs[0][1]


def test_greedy_and_certain() -> None:
    logits = torch.full((2, 5), -1e4)
    logits[0, 2] = logits[1, 4] = 0.0
    found = summarize(logits, torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert found.target_is_greedy.tolist() == [True, False]
    assert found.target_log_probs.tolist() == [0.0, -1e4]
    assert [p.tolist() for p in found.large_probs] == [[1.0], [1.0]]


def test_masked_vocabulary_entries_have_probability_zero() -> None:
    logits = torch.tensor([[0.0, 0.0, -float("inf")]])
    found = summarize(logits, torch.tensor([0, 0]), torch.tensor([1, 2]))
    np.testing.assert_allclose(found.target_log_probs, [np.log(0.5), -np.inf])
    np.testing.assert_allclose(found.large_probs[0], [0.5, 0.5])


def test_a_flat_distribution_has_no_large_probability() -> None:
    found = summarize(torch.zeros(1, 1000), torch.tensor([0]), torch.tensor([3]))
    assert found.large_probs[0].tolist() == []
    np.testing.assert_allclose(found.target_log_probs, [-np.log(1000)], rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_logits_show_in_the_normalizer(bad: float) -> None:
    logits = torch.zeros(2, 4)
    logits[1, 0] = bad
    normalizers = summarize(logits, torch.tensor([0]), torch.tensor([0])).log_normalizers
    assert np.isfinite(normalizers).tolist() == [True, False]


def test_sums_a_large_vocabulary_in_float64() -> None:
    # A float32 running sum of 3 million equal terms stands still long before its end.
    found = summarize(torch.zeros(1, 3_000_000, dtype=torch.bfloat16), torch.tensor([0]), torch.tensor([1]))
    np.testing.assert_allclose(found.log_normalizers, [np.log(3_000_000)], rtol=1e-12)


@pytest.mark.parametrize("v", [1, 2, 63, 64, 65, 128, 200, 6401])
@pytest.mark.parametrize("scale", [0.0, 4.0, 40.0])
def test_the_pass_finds_the_same_at_any_vocabulary_and_with_fixed_shapes(v: int, scale: float) -> None:
    logits = peaked(9, v, scale)
    probs = naive(logits)
    for fixed_shape in (False, True):
        found = one_pass(logits, fixed_shape=fixed_shape)
        assert torch.equal(found.top, logits.amax(-1).float())
        assert torch.equal(found.top, logits.amax(-1))
        np.testing.assert_allclose(
            (found.top + found.log_sum).numpy(), logits.double().logsumexp(-1).numpy(), rtol=1e-6, atol=1e-6
        )
        large = (found.large - found.top[:, None] - found.log_sum[:, None]).exp().numpy()
        for row, got in zip(probs, large, strict=True):
            expected = np.sort(row[row >= MIN_LARGE_PROB])
            np.testing.assert_allclose(np.sort(got)[len(got) - len(expected) :], expected, atol=1e-6)
        if fixed_shape:
            assert found.large.shape[1] == min(101, v)


def test_a_hundred_entries_of_a_hundredth_are_all_kept() -> None:
    logits = torch.full((2, 100_000), -1e4)
    logits[0, ::1000] = 7.0
    for fixed_shape in (False, True):
        large = one_pass(logits, fixed_shape=fixed_shape).large
        assert int((large[0] == 7.0).sum()) == 100


def test_broken_logits_do_not_break_the_pass_with_fixed_shapes() -> None:
    logits = torch.zeros(3, 500)
    logits[0, 3], logits[1, 499] = float("nan"), float("inf")
    found = one_pass(logits, fixed_shape=True)
    assert (found.top + found.log_sum).isfinite().tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_largest_logits_the_first_is_the_greedy_token(dtype: torch.dtype) -> None:
    v = 132  # two chunks of 64 and 4 more
    positions = [range(v), [5, 70, 129], [128, 129], [3, 70], [70, 71], [130, 131], [5, 131], [63, 64]]
    n = len(positions)
    logits = torch.zeros(n, v, dtype=dtype)
    for row, largest in zip(logits, positions, strict=True):
        row[list(largest)] = 2.0
    found = summarize(logits, torch.arange(n).repeat_interleave(v), torch.arange(v).repeat(n))
    greedy = found.target_is_greedy.reshape(n, v)
    assert [row.nonzero()[0].tolist() for row in greedy] == [[largest[0]] for largest in positions]
