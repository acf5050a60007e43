"""Selective accuracy, the risk-coverage curve, and the parts of the log loss."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics

EXACT = {"abs": 1e-12, "rel": 0}


def test_the_mean_of_the_curve_is_aurc(make_sample):
    for sample in (make_sample(101), make_sample(80, ties=True)):
        curve = metrics.risk_coverage_curve(sample.confidence, sample.correct)
        assert curve.risk.mean() == pytest.approx(metrics.aurc(sample.confidence, sample.correct), **EXACT)
        assert curve.risk[-1] == pytest.approx(1 - sample.correct.mean(), **EXACT)
        assert curve.coverage == pytest.approx(np.arange(1, len(curve.risk) + 1) / len(curve.risk), **EXACT)
        assert np.all(np.diff(curve.threshold) <= 0)


def test_selective_accuracy_is_that_of_the_most_confident_docs():
    confidence, correct = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0]
    for coverage, expected in ((0.2, 1), (0.4, 1), (0.41, 2 / 3), (0.6, 2 / 3), (0.8, 3 / 4), (1, 3 / 5)):
        assert metrics.selective_accuracy(confidence, correct, coverage=coverage) == pytest.approx(expected, **EXACT)
    tied = metrics.selective_accuracy([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0], coverage=0.5)
    assert tied == pytest.approx((1 + 1 / 3) / 2, **EXACT)


def test_selective_accuracy_interval_is_mid_p():
    confidence, correct = np.linspace(0.5, 0.99, 100), np.arange(100) % 4 != 0
    answered = np.count_nonzero(correct[50:])
    found = metrics.selective_accuracy_interval(confidence, correct, coverage=0.5)
    tails = [stats.binom.sf(answered, 50, end) + stats.binom.pmf(answered, 50, end) / 2 for end in found]
    assert tails == pytest.approx([0.025, 0.975], abs=1e-9)


@pytest.mark.parametrize("coverage", [0, -0.1, 1.1, float("nan")])
def test_a_coverage_answers_some_docs(coverage):
    with pytest.raises(ValueError, match="coverage"):
        metrics.selective_accuracy([0.5], [1], coverage=coverage)


def test_the_best_temperature_of_the_golden_sample(golden):
    parts = metrics.nll_decomposition(golden.probs, golden.labels)
    assert parts.temperature == pytest.approx(1.94890776, abs=1e-5)
    gold = np.arange(len(golden.labels)), golden.labels
    at_best = -log_softmax(np.log(golden.probs) / 1.94890776, axis=1)[gold].mean()
    assert parts.refinement == pytest.approx(at_best, **EXACT)
    assert parts.calibration + parts.refinement == pytest.approx(metrics.nll(golden.probs, golden.labels), **EXACT)


def test_ragged_docs_are_those_with_choices_of_no_probability(make_sample):
    sample = make_sample(150, ragged=True, k=6)
    padded = np.zeros((150, 6))
    for row, probs in zip(padded, sample.probs, strict=True):
        row[: len(probs)] = probs
    found = metrics.nll_decomposition(sample.probs, sample.labels)
    assert found == pytest.approx(metrics.nll_decomposition(padded, sample.labels), abs=1e-9)


def test_no_grid_of_temperatures_is_better(make_sample):
    sample = make_sample(300)
    gold = np.arange(300), sample.labels
    losses = [-log_softmax(np.log(sample.probs) / t, axis=1)[gold].mean() for t in np.geomspace(0.1, 10, 400)]
    parts = metrics.nll_decomposition(sample.probs, sample.labels)
    assert parts.refinement <= min(losses)
    assert parts.refinement == pytest.approx(min(losses), abs=1e-4)


def test_calibrated_docs_gain_half_a_nat_over_n():
    rng, gains = np.random.default_rng(0), []
    for _ in range(200):
        z = rng.normal(0, 1.5, (300, 4))
        probs = np.exp(log_softmax(z, axis=1))
        labels = (rng.random((300, 1)) > probs.cumsum(axis=1)).sum(axis=1).clip(0, 3)
        gains.append(metrics.nll_decomposition(probs, labels).calibration)
    assert min(gains) >= 0
    assert np.mean(gains) == pytest.approx(1 / 600, rel=0.3)


def test_a_gold_choice_of_probability_0_has_no_parts():
    with pytest.warns(UndefinedMetricWarning, match="probability 0"):
        assert np.isnan(metrics.nll_decomposition([[1, 0], [0.5, 0.5]], [1, 0])).all()
