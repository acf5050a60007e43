"""Changes on the same docs, with intervals; operating points."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.metrics.uncertainty.shares import exact_upper_bound, share_interval
from lm_eval_calibration.recalibration import (
    Forecasts,
    MapByGroup,
    RecalibrationWarning,
    Temperature,
    before_after,
    choose_threshold,
    cross_fit,
    cross_fit_operating_point,
    evaluate_threshold,
)

CHOICES_ALONE = [name for name, metric in CATALOG.items() if metric.kind == "choices"]


def test_changes_are_those_of_metrics_compare(golden_docs):
    before, after = golden_docs.forecasts, cross_fit("temperature", golden_docs).forecasts
    names = [name for name in CATALOG if name not in ("full_ece", "smece")]
    runs = (metrics.Run(f.confidence, f.correct, f.probs, f.labels) for f in (before, after))
    expected = metrics.compare(*runs, names=names, n_bins=7, same_answers=True)
    changes = before_after(before, after, names=names, n_bins=7)
    assert changes[0] == ("acc", before.correct.mean(), before.correct.mean(), 0, 0, True, 1, "")
    for change in changes[1:]:
        one = expected[change.name]
        assert (change.before, change.after, change.low, change.high, change.p_value) == (
            one.a,
            one.b,
            one.low,
            one.high,
            one.p_value,
        )


@pytest.mark.parametrize(("said", "temperature"), [(2.0, 1.95), (1.0, 1.3)], ids=["becomes right", "was right"])
@pytest.mark.slow
def test_intervals_of_the_change_hold_their_level(said, temperature, docs_of):
    """A map held fixed, 80 samples of 200 docs; the plain bootstrap interval of ece would cover 67% of them."""
    names = ("nll", "brier_score", "ece")
    fixed = MapByGroup("temperature", {"": Temperature(temperature)}, frozenset())
    population = docs_of(60_000, temperature=said, seed=100)
    changes = before_after(population.forecasts, fixed.forecasts(population), names=names)
    truth = {c.name: c.change for c in changes}
    covered = dict.fromkeys(names, 0)
    for seed in range(80):
        docs = docs_of(200, temperature=said, seed=seed)
        for c in before_after(docs.forecasts, fixed.forecasts(docs), names=names)[1:]:
            covered[c.name] += c.low <= truth[c.name] <= c.high
    assert min(covered.values()) >= 0.9 * 80  # of 0.95 * 80 two standard errors less


def test_unchanged_forecasts_do_not_change(golden_docs):
    for change in before_after(golden_docs.forecasts, golden_docs.forecasts):
        assert (change.change, change.low, change.high, change.verdict) == (0, 0, 0, "")


@pytest.mark.slow
def test_every_metric_of_the_catalog_is_compared(golden_docs):
    pytest.importorskip("relplot", reason="smece is relplot's")
    after = cross_fit("temperature", golden_docs).forecasts
    names = {c.name for c in before_after(golden_docs.forecasts, after)}
    assert names == {"acc", *CATALOG} - {"full_ece"}
    after = cross_fit("platt", golden_docs).forecasts
    names = {c.name for c in before_after(golden_docs.forecasts, after)}
    assert names == {"acc", *CATALOG} - {"full_ece", *CHOICES_ALONE}


def test_overconfidence_is_better_nearer_to_0(golden_docs):
    after = cross_fit("temperature", golden_docs).forecasts
    (_, better) = before_after(golden_docs.forecasts, after, names=("overconfidence",))
    (_, worse) = before_after(after, golden_docs.forecasts, names=("overconfidence",))
    assert (better.verdict, worse.verdict) == ("better", "worse")


def test_forecasts_of_other_docs_are_refused(golden_docs, docs_of):
    with pytest.raises(ValueError, match="not forecasts of the same docs"):
        before_after(golden_docs.forecasts, docs_of(2000, seed=9).forecasts)


def test_what_is_undefined_has_no_interval_and_no_verdict():
    probs = np.array([[1.0, 0.0], [0.6, 0.4]])
    impossible = Forecasts(np.array([1.0, 0.6]), np.array([0, 1]), np.array([1, 0]), probs)
    (_, change) = before_after(impossible, impossible, names=("nll",))
    assert change.before == math.inf
    assert math.isnan(change.low)
    assert change.verdict == ""
    flatter = Forecasts(np.array([0.9, 0.6]), np.array([0, 1]), np.array([1, 0]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    with pytest.warns(Warning, match="an interval of nll needs finite values"):
        (_, change) = before_after(impossible, flatter, names=("nll",))
    assert math.isnan(change.low)
    one, other = (Forecasts(np.array([c]), np.array([1]), np.array([0]), np.array([[c, 1 - c]])) for c in (0.6, 0.7))
    with pytest.warns(Warning, match="auroc is undefined"):
        (_, change) = before_after(one, other, names=("auroc",))
    assert math.isnan(change.before)
    assert math.isnan(change.high)


def test_one_doc_says_nothing_about_others(docs_of):
    doc = docs_of(1)
    flatter = doc.with_probs(Temperature(1.5).predict_proba(doc.log_likelihoods))
    with pytest.warns(Warning, match="an interval needs at least two docs"):
        changes = before_after(doc.forecasts, flatter, names=("nll", "ece", "overconfidence"))
    for change in changes[1:]:
        assert change.change != 0
        assert math.isnan(change.low)
        assert math.isnan(change.p_value)
        assert change.verdict == ""


def test_equal_confidences_mapped_to_one_value_still_have_the_bias_of_the_bins():
    correct = np.arange(100) % 2
    before, after = (Forecasts(np.full(100, c), correct, 1 - correct) for c in (0.7, 0.51))
    (_, change, error) = before_after(before, after, names=("overconfidence", "ece"))
    assert (change.low, change.high) == pytest.approx((-0.19, -0.19), abs=0.005)  # for each doc the same
    assert error.low < -0.19 - 0.03
    assert error.high > -0.19 + 0.03


def test_a_rate_of_few_docs_has_an_interval_that_knows_it():
    correct = np.array([1, 0] * 20 + [1])
    before = Forecasts(np.full(41, 0.95), correct, 1 - correct)
    after = Forecasts(np.append(np.full(40, 0.6), 0.95), correct, 1 - correct)
    (_, change) = before_after(before, after, names=("confident_error_rate",))
    assert (change.before, change.after) == (20 / 41, 0)  # of one doc, which says next to nothing
    assert change.verdict == ""
    nobody = Forecasts(np.full(41, 0.6), correct, 1 - correct)
    with pytest.warns(Warning, match="confident_error_rate is undefined"):
        (_, change) = before_after(before, nobody, names=("confident_error_rate",))
    assert math.isnan(change.low)
    assert change.verdict == ""


def test_the_threshold_is_the_lowest_that_keeps_the_error_rate():
    confidence = [0.9, 0.8, 0.8, 0.7, 0.6]
    correct = [1, 1, 0, 1, 0]
    assert choose_threshold(confidence, correct, wanted=0.0) == 0.9
    assert choose_threshold(confidence, correct, wanted=0.25) == 0.7  # 1 of 4; the tied 0.8s are 1 of 3 together
    assert choose_threshold(confidence, correct, wanted=0.3) == 0.7
    assert choose_threshold(confidence, correct, wanted=0.4) == 0.6
    with pytest.warns(RecalibrationWarning, match=r"no confidence gives an error rate of 0\.1 or less"):
        assert choose_threshold([0.9, 0.8], [0, 0], wanted=0.1) == math.inf
    with pytest.raises(ValueError, match=r"wanted is 1\.5, outside"):
        choose_threshold(confidence, correct, wanted=1.5)


def test_a_threshold_is_judged_with_the_intervals_of_all_shares_and_an_exact_bound():
    point = evaluate_threshold([0.9, 0.8, 0.3, 0.95], [1, 0, 0, 1], 0.8, wanted=0.1)
    assert point.error_rate == (1 / 3, *share_interval(1, 3, 0.95))
    assert point.coverage == (3 / 4, *share_interval(3, 4, 0.95))
    assert point.error_bound == pytest.approx(binomtest(1, 3, alternative="less").proportion_ci(method="exact").high)
    assert (point.n_answered, point.n_docs) == (3, 4)
    none = evaluate_threshold([0.9], [1], math.inf, wanted=0.1)
    assert none.n_answered == 0
    assert math.isnan(none.error_rate[0])
    assert math.isnan(none.error_bound)
    assert none.coverage[0] == 0
    all_right = evaluate_threshold([0.9] * 10, [1] * 10, 0.5, wanted=0.1)
    assert all_right.error_rate[:2] == (0, 0)
    assert all_right.error_bound == pytest.approx(1 - 0.05**0.1)


def test_the_exact_bound_is_exceeded_in_no_more_than_5_percent_of_the_samples():
    n, rates = 40, np.linspace(0.01, 0.99, 25)
    bounds = np.array([exact_upper_bound(count, n, 0.95) for count in range(n + 1)])
    assert max(binom.pmf(np.flatnonzero(bounds < rate), n, rate).sum() for rate in rates) <= 0.05


def test_cross_fitted_operating_points_keep_what_they_promise(docs_of):
    docs = docs_of(4000, seed=2)
    fitted = cross_fit("temperature", docs)
    for wanted in (0.1, 0.25):
        point = cross_fit_operating_point(docs, fitted, wanted=wanted)
        assert point.error_rate[1] <= wanted <= point.error_rate[2]
        assert 0.1 < point.coverage[0] < 1


def test_thresholds_are_chosen_on_other_docs(docs_of):
    docs = docs_of(200, seed=3)
    fitted = cross_fit("platt", docs)
    thresholds = np.zeros(200)
    for k, fold_map in fitted.maps.items():
        seen = fold_map.forecasts(docs.take(np.flatnonzero(fitted.fold != k)))
        thresholds[fitted.fold == k] = choose_threshold(seen.confidence, seen.correct, wanted=0.2)
    assert len(set(thresholds)) == 5
    point = cross_fit_operating_point(docs, fitted, wanted=0.2)
    assert point.threshold == np.median(thresholds)
    assert point.n_answered == (fitted.forecasts.confidence >= thresholds).sum()
