"""Intervals of binned errors by inverted tests: against every draw, the normal interval of one gap, and the null."""

import numpy as np
import pytest
from scipy import special, stats

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.uncertainty import gap_vectors, inversion


def test_gaps_that_cancel_by_coincidence_are_not_certainty():
    low, high = metrics.ece_interval([0.5, 0.5], [1, 0])
    assert low == 0
    assert high > 0.5
    low, high = metrics.ece_interval(np.full(1000, 0.5), np.arange(1000) % 2)
    assert low == 0
    assert 0.02 < high < 0.06


def test_inversion_of_one_gap_is_the_interval_of_its_size():
    """One gap far from 0: the interval of |mu| is that of mu, at the stricter level."""
    rng = np.random.default_rng(0)
    influence = rng.normal(0, 1, (1000, 1))
    influence -= influence.mean()
    no_counts = gap_vectors.Counts(np.zeros(1), np.zeros(1), np.zeros(1))
    vector = gap_vectors.GapVector(np.array([-0.5]), influence, np.zeros(1), no_counts)
    estimate = inversion.error_estimate(vector, "sum", level=0.95, seed=0)
    half = stats.norm.isf(0.025 * inversion.STRICTNESS) * np.sqrt(np.mean(influence**2) / 1000)
    assert estimate.value == pytest.approx(0.5, abs=1e-3)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)
    root = inversion.error_estimate(vector, "root", level=0.95, seed=0)
    assert (root.low, root.high) == pytest.approx((estimate.low, estimate.high), abs=1e-5)


def ends_by_every_draw(observed, path, noise, size, alpha):
    """As the text of ``_invert`` says, every draw looked at for every population."""
    tail, slack = inversion.STRICTNESS * alpha / 2, 1e-12 * max(1.0, observed)

    def sizes(t):
        return size(path.at(t) + noise)

    def last(holds):
        inside, outside = 0.0, path.end
        if not holds(0.0):
            return 0.0
        for _ in range(inversion.STEPS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        return float(size(path.at(outside)))

    bound = max(observed, float(np.median(sizes(0.0)))) + slack
    low = min(observed, last(lambda t: np.mean(sizes(t) >= observed - slack) <= tail))
    high = max(observed, last(lambda t: np.mean(sizes(t) <= bound) > tail))
    return low, float(np.clip(last(lambda t: np.mean(sizes(t) <= observed + slack) > 0.5), low, high)), high


@pytest.mark.parametrize("norm", ["sum", "root"])
def test_draws_that_are_looked_at_no_more_change_nothing(norm):
    rng = np.random.default_rng(4)
    for seed in range(60):
        n_gaps, scale = int(rng.choice([1, 2, 10, 40])), rng.choice([0, 0.5, 1, 3])
        variance = 10 ** rng.uniform(-7, -2, n_gaps) * (rng.random(n_gaps) > rng.choice([0, 0.3]))
        gaps = np.abs(scale * rng.normal(0, np.sqrt(variance)) + rng.choice([0, 0.02, 0.1]) * rng.normal(size=n_gaps))
        noise, size = inversion._draw(np.diag(variance), seed, 1e9), inversion._SIZES[norm]
        path = (inversion._thresholded if norm == "sum" else inversion._scaled)(gaps, variance)
        question = float(size(gaps)), path, noise, size, 0.05
        assert inversion._invert(*question) == ends_by_every_draw(*question)


def test_an_error_within_its_noise_has_an_interval_from_0():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.25, 1, 300)
    correct = rng.random(300) < confidence
    for interval in (metrics.ece_interval, metrics.rms_ce_interval, metrics.ace_top_label_interval):
        low, high = interval(confidence, correct)
        assert low == 0
        assert 0 < high < 0.25


@pytest.mark.parametrize("name", ["ece", "ace", "sce", "full_ece_choices", "full_ece"])
def test_no_error_that_is_beyond_the_null_would_have_been_within_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, told, metric = np.random.default_rng(8), [], metrics.CATALOG[name]
    real = inversion._is_beyond_null
    for _ in range(25):
        n_docs, n_choices = int(rng.choice([40, 300, 1500])), int(rng.integers(2, 6))
        logits = rng.normal(0, 1.5, (n_docs, n_choices))
        probs = special.softmax(rng.uniform(0.8, 2.5) * logits, axis=1)
        labels = np.array([rng.choice(n_choices, p=row) for row in special.softmax(logits, axis=1)])
        targets = np.arange(n_choices) == labels[:, None]
        arrays = {
            "choices": (probs, labels),
            "top_label": (probs.max(1), (probs.argmax(1) == labels) * 1),
            "full_vocabulary": (
                metrics.gap_sums_of_positions(probs.ravel(), np.full(n_docs, n_choices), probs[targets], n_bins=10),
                np.ones(n_docs, dtype=int),
            ),
        }[metric.kind]
        monkeypatch.setattr(inversion, "_is_beyond_null", lambda *a: told.append(real(*a)) or told[-1])
        found = metric.interval(*arrays)
        monkeypatch.setattr(inversion, "_is_beyond_null", lambda *_: False)
        assert found == metric.interval(*arrays)
    assert {True, False} <= set(told)
