"""Nulls: the literal simulation, known truth, p-values that are uniform, power, and the words."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG, Null, full_vocabulary, too_few_to_tell
from lm_eval_calibration.metrics.uncertainty import nulls, resampling

WITH_NULL = [name for name in CATALOG if CATALOG[name].null is not None]


def arrays(sample, name):
    return sample.arrays(CATALOG[name].kind)


def literal_null(name, sample, draws, seed):
    """The metric itself on labels that are drawn from the forecasts, one draw after the other."""
    rng, values, probs = np.random.default_rng(seed), [], [np.asarray(p) for p in sample.probs]
    for _ in range(draws):
        labels = np.array([rng.choice(len(p), p=p / p.sum()) for p in probs])
        correct = rng.random(len(probs)) < sample.confidence
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "full_ece":
                values.append(metrics.full_ece(np.array(probs), labels))
            elif CATALOG[name].kind == "top_label":
                values.append(CATALOG[name].value(sample.confidence, correct))
            else:
                values.append(CATALOG[name].value(probs, labels))
    return np.array(values)


SHAPES = [{"n": 90}, {"n": 70, "ties": True}, {"n": 80, "ragged": True, "k": 5}]
WIDE = [{"n": 90}, {"n": 80, "k": 12}]  # a vocabulary is not ragged
CASES = [(name, shape) for name in WITH_NULL for shape in (WIDE if name == "full_ece" else SHAPES)]
FAST = [case for case in CASES if case[0] != "smece" or case[1] is SHAPES[0]]


@pytest.mark.parametrize(("name", "shape"), FAST, ids=str)
@pytest.mark.slow
def test_the_null_is_the_literal_simulation(make_sample, name, shape):
    sample = make_sample(**shape)
    null, expected = CATALOG[name].null(*arrays(sample, name)), literal_null(name, sample, 150, seed=1)
    assert null.value == pytest.approx(CATALOG[name].value(*arrays(sample, name)), abs=1e-12)
    error = 5 * np.std(expected) / np.sqrt(150)
    assert null.mean == pytest.approx(expected.mean(), abs=error)
    assert np.quantile(expected, 0.88) <= null.upper <= np.quantile(expected, 0.995) + 1e-9
    assert CATALOG[name].null(*arrays(sample, name), seed=0) == null


def test_the_null_of_ece_is_what_the_definitions_say():
    """10 bins, confidence uniform on (0.25, 1): 0.096 at 100 docs, 0.031 at 1,000, 0.008 at 14,042."""
    rng = np.random.default_rng(0)
    for n, expected, tolerance in ((100, 0.096, 0.008), (1000, 0.031, 0.002), (14_042, 0.008, 0.0006)):
        confidence = rng.uniform(0.25, 1, n)
        assert metrics.ece_null(confidence, np.ones(n)).mean == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", ["ece", "ace", "sce", "full_ece", "full_ece_choices", "brier_score", "nll", "auroc"])
def test_above_the_limit_the_normal_draws_agree_with_the_exact_ones(make_sample, monkeypatch, name):
    sample = make_sample(1500, k=5, ragged=name in ("ace", "sce", "brier_score"))
    exact = CATALOG[name].null(*arrays(sample, name))
    monkeypatch.setattr(resampling, "EXACT_DOCS", 100)
    normal = CATALOG[name].null(*arrays(sample, name))
    assert normal != exact
    assert normal.mean == pytest.approx(exact.mean, rel=0.05)
    assert normal.upper == pytest.approx(exact.upper, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ece", "ace_top_label", "overconfidence", "brier_top_label"])
def test_p_values_are_uniform_under_calibration(name):
    """300 samples of a calibrated model: the share below 5%, 20% and 50% within 4 standard errors."""
    rng, p_values = np.random.default_rng(5), []
    for _ in range(300):
        confidence = rng.uniform(0.25, 1, 150)
        p_values.append(CATALOG[name].null(confidence, rng.random(150) < confidence).p_value)
    for share in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= share) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 300))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ece", "ace_top_label", "rms_ce", "overconfidence"])
def test_an_overconfidence_of_five_points_is_found_at_2000_docs(name):
    rng, found = np.random.default_rng(6), 0
    for _ in range(50):
        confidence = rng.uniform(0.3, 1, 2000)
        correct = rng.random(2000) < confidence - 0.05
        found += CATALOG[name].null(confidence, correct).p_value <= 0.05
    assert found >= 46


def test_bins_of_single_positions_are_read_off_their_gap_sums(make_sample):
    sample = make_sample(200, k=12)
    gaps = metrics.position_gap_sums(sample.probs, sample.labels)
    row = np.repeat(np.arange(200), 12)
    cell = row * 10 + metrics.bin_index(sample.probs.ravel(), 10)
    masses = np.bincount(cell, sample.probs.ravel(), 2000).reshape(200, 10)
    found = full_vocabulary._bin_masses(gaps)
    one_bin = masses.max(axis=1) > 1 - 1e-9
    assert found[one_bin] == pytest.approx(0)
    assert found[~one_bin] == pytest.approx(masses[~one_bin], abs=1e-12)
    positions = np.ones(200, dtype=int)
    assert metrics.full_ece_null(sample.probs, sample.labels) == metrics.full_ece_from_gap_sums_null(gaps, positions)


def test_docs_of_several_positions_have_the_null_of_their_own_noise(make_sample):
    sample = make_sample(3000, k=8)
    rng = np.random.default_rng(2)
    labels = (rng.random((3000, 1)) > sample.probs.cumsum(axis=1)).sum(axis=1).clip(0, 7)
    gaps = metrics.position_gap_sums(sample.probs, labels)
    exact = metrics.full_ece_null(sample.probs, labels)
    docs = metrics.full_ece_from_gap_sums_null(gaps.reshape(1000, 3, 10).sum(axis=1), np.full(1000, 3))
    assert docs.mean == pytest.approx(exact.mean, rel=0.06)
    assert docs.upper == pytest.approx(exact.upper, rel=0.06)
    with pytest.warns(UndefinedMetricWarning, match="needs 30 docs"):
        few = metrics.full_ece_from_gap_sums_null(gaps[:60].reshape(20, 3, 10).sum(axis=1), np.full(20, 3))
    assert few.value > 0
    assert np.isnan(few[1:]).all()


def test_a_value_that_no_draw_reaches_has_the_smallest_p_value():
    null = metrics.ece_null(np.full(500, 0.9), np.zeros(500))
    assert null.p_value == 1 / (nulls.MORE * nulls.DRAWS + 1)
    assert null.upper < null.value == pytest.approx(0.9)


def test_certain_forecasts_have_no_noise_and_a_constant_one_is_discrete():
    assert metrics.ece_null(np.ones(50), np.ones(50)) == (0, 0, 0, 1)
    assert metrics.full_ece_null([[0.5, 0.5]], [1]) == (0, 0, 0, 1)  # both in one bin
    half = metrics.ece_null(np.full(4, 0.5), [1, 1, 0, 0])
    assert half.p_value == 1
    assert half.mean == pytest.approx(0.1875, abs=0.02)  # E|Binomial(4, 1/2) / 4 - 1/2|


@pytest.mark.parametrize("name", ["auroc", "skill_score"])
def test_an_undefined_value_has_no_null(name):
    with pytest.warns(UndefinedMetricWarning):
        null = CATALOG[name].null([0.4, 0.8], [1, 1])
    assert np.isnan(null).all()


def test_direction_of_the_p_value():
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.3, 1, 1000)
    senseless = rng.random(1000) < 0.65
    assert metrics.auroc_null(confidence, senseless).p_value < 0.01
    assert metrics.skill_score_null(confidence, senseless).p_value < 0.01
    modest = rng.random(1000) < np.minimum(1, confidence + 0.15)
    assert metrics.overconfidence_null(confidence, modest).p_value < 0.01
    assert metrics.brier_top_label_null(np.full(100, 0.6), np.ones(100)).p_value > 0.99


def test_words_for_too_few_docs():
    unclear = too_few_to_tell("ece", Null(0.052, 0.048, 0.071, 0.31), 200)
    assert unclear == (
        "ece 0.0520 doesn't tell this model from a calibrated one (p = 0.31): "
        "a calibrated one shows 0.0480 on average and up to 0.0710 on 200 such docs"
    )
    assert "is mostly noise" in too_few_to_tell("ace", Null(0.08, 0.05, 0.07, 0.01), 300)
    assert too_few_to_tell("ece", Null(0.15, 0.03, 0.04, 0.001), 1000) is None
    assert too_few_to_tell("full_ece", Null(0.15, *[float("nan")] * 3), 10) is None
    assert too_few_to_tell("overconfidence", Null(-0.15, 0.0, 0.02, 0.001), 1000) is None


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"confidence\[0\] is 1.2"):
        metrics.ece_null([1.2], [1])
    with pytest.raises(ValueError, match=r"probs\[0\] sums to 0.7"):
        metrics.ace_null([[0.5, 0.2]], [0])
    with pytest.raises(ValueError, match="n_bins"):
        metrics.ece_null([0.2], [1], n_bins=0)
    with pytest.raises(ValueError, match="threshold"):
        metrics.confident_error_rate_null([0.2], [1], threshold=2)
