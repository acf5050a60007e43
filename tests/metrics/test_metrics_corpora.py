"""Metrics of the tokens of a corpus, from sums over docs."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.binning import bin_index, bin_sums

EXACT = {"abs": 1e-12, "rel": 0}


def tokens(n_docs=7, seed=0):
    rng = np.random.default_rng(seed)
    docs = []
    for n in rng.integers(1, 60, n_docs):
        confidence = rng.random(n)
        docs.append((confidence, (rng.random(n) < confidence**2).astype(int)))
    return docs


def sums(docs, n_bins):
    gaps = [bin_sums(bin_index(c, n_bins), h - c, n_bins) for c, h in docs]
    return np.array(gaps), [len(c) for c, _ in docs]


@pytest.mark.parametrize("n_bins", [1, 10, 15, 100])
def test_token_ece_is_the_ece_of_all_tokens(n_bins):
    docs = tokens()
    confidence, correct = (np.concatenate(part) for part in zip(*docs, strict=True))
    expected = metrics.ece(confidence, correct, n_bins=n_bins)
    assert metrics.token_ece(*sums(docs, n_bins)) == pytest.approx(expected, **EXACT)


def test_token_accuracy_counts_tokens_not_docs():
    assert metrics.token_accuracy([1, 0], [1, 9]) == pytest.approx(0.1, **EXACT)


@pytest.mark.parametrize("name", ["token_ece", "token_accuracy"])
def test_standard_errors_are_the_bootstrap_over_docs(name):
    docs = tokens(30)
    gaps, n = sums(docs, 10)
    arrays = (gaps, np.array(n)) if name == "token_ece" else (np.array([h.sum() for _, h in docs]), np.array(n))
    naive = metrics_bootstrap(getattr(metrics, name), *arrays)
    assert getattr(metrics, f"{name}_stderr")(*arrays) == pytest.approx(naive, rel=1e-9)


def metrics_bootstrap(function, *arrays):
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(arrays[0]), len(arrays[0])) for _ in range(1000)]
    return np.std([function(*(array[draw] for array in arrays)) for draw in draws], ddof=1)


def test_one_doc_has_no_standard_error():
    with pytest.warns(UserWarning, match="at least two docs"):
        assert np.isnan(metrics.token_accuracy_stderr([3], [4]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.token_ece([[0.5]], [0]), r"gaps\[0\] adds up to 0.5 over 0 tokens"),
        (lambda: metrics.token_ece([[0.0]], [0]), r"n_tokens\[0\] is 0, not a positive integer"),
        (lambda: metrics.token_ece([[0.1], [np.nan]], [1, 1]), r"gaps\[1\] adds up to nan over 1 tokens"),
        (lambda: metrics.token_ece([[2.0, -0.5]], [2]), r"gaps\[0\] adds up to 2.5 over 2 tokens"),
        (lambda: metrics.token_ece([0.5], [1]), r"gaps has shape \[1\]"),
        (lambda: metrics.token_ece([[0.5]], [1, 1]), r"gaps has shape \[1, 1\]; it must be \[2, n_bins\]"),
        (lambda: metrics.token_accuracy([2], [1]), r"n_correct\[0\] is 2 of 1 tokens"),
        (lambda: metrics.token_accuracy([0], [0]), r"n_tokens\[0\] is 0"),
        (lambda: metrics.token_accuracy([1, 1], [1]), "n_correct has 2 docs, but n_tokens has 1"),
    ],
)
def test_bad_input_names_the_row(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["token_ece", "token_accuracy", "full_ece_from_gap_sums"])
def test_fewer_than_10_texts_have_no_interval(name):
    def interval(n_docs):
        docs = tokens(n_docs, seed=1)
        gaps, n = sums(docs, 10)
        if name == "full_ece_from_gap_sums":
            gaps = gaps - gaps.mean(axis=1, keepdims=True)  # each doc's sum to 0
        first = np.array([h.sum() for _, h in docs]) if name == "token_accuracy" else gaps
        return getattr(metrics, f"{name}_interval")(first, n)

    with pytest.warns(UserWarning, match="too few to tell: an interval needs 10 texts, and there are 9"):
        assert np.isnan(interval(9)).all()
    low, high = interval(10)
    assert low < high


def test_three_long_texts_among_short_ones_widen_the_interval_of_a_share():
    """Both have 20 texts and about 2,000 tokens; nine of ten tokens of one are of three texts."""
    even, odd = np.full(20, 100), np.array([600] * 3 + [10] * 17)
    pattern = np.where(np.arange(20) % 2, 0.6, 0.4)
    spread = [metrics.token_accuracy_interval(np.round(pattern * n).astype(int), n) for n in (even, odd)]
    widths = [high - low for low, high in spread]
    assert widths[1] > 3 * widths[0]


def test_the_interval_of_a_share_is_the_jackknifes_over_texts():
    rng = np.random.default_rng(2)
    n = rng.integers(5, 400, 30)
    correct = rng.binomial(n, rng.uniform(0.4, 0.8, 30))
    share, others = correct.sum() / n.sum(), np.arange(30)
    moved = [share - correct[others != i].sum() / n[others != i].sum() for i in others]
    stderr = float(np.linalg.norm(moved)) * np.sqrt(30 / 29) / (share * (1 - share))  # on the logit scale
    freedom = n.sum() ** 2 / np.sum(n**2) - 1
    half = scipy.stats.t(freedom).ppf(0.975) * stderr
    expected = scipy.special.expit(scipy.special.logit(share) + np.array([-half, half]))
    np.testing.assert_allclose(metrics.token_accuracy_interval(correct, n), expected, atol=1e-12)
