"""rms_ce over bins of 100 docs, with the last bin and without it, against their definitions written naively."""

import math

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.top_label_errors import MAX_DOCS_OF_MASS_INTERVAL

EXACT = {"rel": 0, "abs": 1e-12}


def naive(confidence: np.ndarray, correct: np.ndarray, *, with_last: bool) -> float:
    """Docs in order of confidence; bins of 100, and the last one has what is left; equal confidences one mean."""
    docs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True))
    by_value: dict[float, list[float]] = {}
    for c, hit in docs:
        by_value.setdefault(c, []).append(hit)
    docs = [(c, math.fsum(by_value[c]) / len(by_value[c])) for c, _ in docs]
    starts = [100 * m for m in range(max(1, len(docs) // 100))]
    bins = [docs[start:stop] for start, stop in zip(starts, [*starts[1:], len(docs)], strict=True)]
    total = 0.0
    for bin_of_docs in bins if with_last else bins[:-1]:
        gap = sum(hit for _, hit in bin_of_docs) / len(bin_of_docs) - sum(c for c, _ in bin_of_docs) / len(bin_of_docs)
        total += len(bin_of_docs) / len(docs) * gap**2
    return math.sqrt(total)


def docs(n: int, *, ties: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    correct = (rng.random(n) < confidence**2).astype(int)
    return np.round(confidence, 1) if ties else confidence, correct


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 199, 200, 250, 1000, 1099])
def test_both_are_their_definitions(n: int, ties: bool) -> None:
    confidence, correct = docs(n, ties=ties, seed=n)
    expected = naive(confidence, correct, with_last=True)
    assert metrics.rms_ce_mass(confidence, correct) == pytest.approx(expected, **EXACT)
    if n < 200:
        with pytest.warns(UndefinedMetricWarning, match=f"{n} docs make one bin of at least 100"):
            assert math.isnan(metrics.rms_ce_mass_without_last(confidence, correct))
    else:
        expected = naive(confidence, correct, with_last=False)
        assert metrics.rms_ce_mass_without_last(confidence, correct) == pytest.approx(expected, **EXACT)


def test_the_order_of_the_docs_is_no_matter() -> None:
    confidence, correct = docs(350, ties=True)
    order = np.random.default_rng(1).permutation(350)
    for function in (metrics.rms_ce_mass, metrics.rms_ce_mass_without_last):
        assert function(confidence[order], correct[order]) == pytest.approx(function(confidence, correct), **EXACT)


def test_the_last_bin_is_where_overconfidence_shows() -> None:
    confidence = np.r_[np.full(200, 0.5), np.full(100, 0.99)]
    correct = np.r_[np.tile([0, 1], 100), np.zeros(100)]
    assert metrics.rms_ce_mass_without_last(confidence, correct) == 0
    assert metrics.rms_ce_mass(confidence, correct) == pytest.approx(0.99 / math.sqrt(3))


def test_the_interval_holds_the_value_and_the_gaps_add_up() -> None:
    for n in (60, 250):
        confidence, correct = docs(n)
        low, high = metrics.rms_ce_mass_interval(confidence, correct)
        assert 0 <= low <= metrics.rms_ce_mass(confidence, correct) <= high <= 1
        null = metrics.rms_ce_mass_null(confidence, correct)
        assert null.value == metrics.rms_ce_mass(confidence, correct)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 docs of a model that is overconfident by c - c^2: the truth at two halves of the confidences."""
    rng, n = np.random.default_rng(0), 200
    grid = (np.arange(100_000) + 0.5) / 100_000
    gaps = [np.mean(half - half**2) for half in (grid[:50_000], grid[50_000:])]
    truth = math.sqrt(np.mean(np.square(gaps)))
    covered = 0
    for _ in range(300):
        confidence = rng.random(n)
        low, high = metrics.rms_ce_mass_interval(confidence, (rng.random(n) < confidence**2).astype(int))
        covered += low <= truth <= high
    assert 0.93 <= covered / 300 <= 1


def test_too_many_docs_have_no_interval() -> None:
    n = MAX_DOCS_OF_MASS_INTERVAL + 1
    with pytest.warns(UndefinedMetricWarning, match="no interval of more than 50000 docs"):
        assert np.isnan(metrics.rms_ce_mass_interval(*docs(n))).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"confidence\[1\].*1\.5"):
        metrics.rms_ce_mass([0.5, 1.5], [0, 1])
