"""One bin for each value of confidences that take a few; which edge of a bin is closed; p-values of more draws."""

import numpy as np
import pytest

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import value_errors
from lm_eval_calibration.metrics.uncertainty.nulls import null_of_draws


def draw(rng, n=500, wrong_at=(0.9, 1.0)):
    """Shares of ten votes; 0.9 is right always and 1.0 in eight of ten."""
    confidence = rng.choice([0.5, 0.7, 0.9, 1.0], size=n)
    accuracy = np.select([confidence == wrong_at[0], confidence == wrong_at[1]], [1.0, 0.8], confidence)
    return confidence, (rng.random(n) < accuracy).astype(int)


def test_it_is_the_definition():
    confidence, correct = draw(np.random.default_rng(0))
    expected = sum(
        np.mean(confidence == value) * abs(correct[confidence == value].mean() - value) for value in set(confidence)
    )
    assert metrics.ece_values(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_opposite_errors_of_values_in_one_bin_do_not_cancel():
    """0.9 and 1.0 share the last of ten bins."""
    confidence, correct = draw(np.random.default_rng(1), 20_000)
    assert metrics.ece_values(confidence, correct) == pytest.approx(0.075, abs=0.01)
    assert metrics.ece(confidence, correct) < 0.04


def test_interval_and_null_are_of_these_bins():
    confidence, correct = draw(np.random.default_rng(2), 2000)
    low, high = metrics.ece_values_interval(confidence, correct)
    assert low <= 0.075 <= high
    assert metrics.ece_values_null(confidence, correct).p_value < 0.001
    calibrated = (np.random.default_rng(3).random(2000) < confidence).astype(int)
    assert metrics.ece_values_interval(confidence, calibrated)[0] == 0
    assert metrics.ece_values_stderr(confidence, correct) == pytest.approx(0.0085, abs=0.003)


def test_more_than_twenty_values_have_a_reason():
    confidence = np.linspace(0, 1, value_errors.MAX_VALUES + 1)
    correct = np.arange(len(confidence)) % 2
    for function in (metrics.ece_values, metrics.ece_values_stderr, metrics.ece_values_interval):
        with pytest.warns(UserWarning, match="21 different confidences, more than 20"):
            assert np.isnan(function(confidence, correct)).all()
    assert np.isfinite(metrics.ece_values(confidence[1:], correct[1:]))


def test_a_confidence_on_an_edge_is_in_the_upper_bin_as_in_torchmetrics_and_netcal():
    """And not in the lower one, as in scikit-learn's calibration_curve: 0.5 and 0.45 differ there by no bin."""
    from sklearn.calibration import calibration_curve

    confidence, correct = np.array([0.5, 0.5, 0.45, 0.55]), np.array([1, 1, 0, 0])
    assert metrics.ece(confidence, correct) == pytest.approx((0.45 + abs(2 - 1 - 0.55)) / 4, abs=1e-12)
    _, mean_confidence = calibration_curve(correct, confidence, n_bins=10)
    assert mean_confidence == pytest.approx([(0.5 + 0.5 + 0.45) / 3, 0.55])


# --- p-values of more draws ------------------------------------------------------------------------------------------


def test_holm_over_57_subjects_can_reject():
    rng = np.random.default_rng(4)
    confidence = rng.uniform(0.5, 1, 200)
    p_value = metrics.overconfidence_null(confidence, rng.random(200) < confidence - 0.3).p_value
    assert p_value == 1 / 5001
    assert metrics.holm([p_value, *[1.0] * 56])[0] < 0.05


def test_few_draws_that_are_as_bad_ask_for_more():
    """The p-value of the first 1,000 draws where ten of them are as bad, else that of 5,000, at most 10 / 1001."""
    seeds = []

    def drawn(n_bad):
        def of_seed(seed):
            seeds.append(seed)
            return np.where(np.arange(1000) < (n_bad if len(seeds) == 1 else 50), 2.0, 0.0)

        return of_seed

    assert null_of_draws(1.0, drawn(10), 0, higher_is_better=False).p_value == 11 / 1001
    assert len(seeds) == 1
    seeds.clear()
    assert null_of_draws(1.0, drawn(9), 0, higher_is_better=False).p_value == 10 / 1001  # (1 + 9 + 200) / 5001 is more
    assert len(set(seeds)) == 5


def test_p_values_of_calibrated_docs_are_not_too_small():
    """Of 20,000 exact draws of a null that is uniform, by its own formula: P(p <= a) <= a."""
    rng = np.random.default_rng(5)
    p_values = []
    for true_p in rng.random(20_000):
        first, rest = rng.binomial(1000, true_p), rng.binomial(4000, true_p)
        p = (1 + first) / 1001
        p_values.append(p if first >= 10 else min(10 / 1001, (1 + first + rest) / 5001))
    for level in (0.0005, 0.001, 0.005, 0.01, 0.05):
        share = np.mean(np.array(p_values) <= level)
        assert share <= level + 3 * np.sqrt(level / 20_000)
