"""Paired intervals against the plain bootstrap; operating points; strata."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.metrics.resampling import bootstrap_estimates
from lm_eval_calibration.recalibration import (
    Forecasts,
    MapByGroup,
    RecalibrationWarning,
    Temperature,
    before_after,
    choose_threshold,
    cross_fit,
    cross_fit_operating_point,
    judge_threshold,
    metrics_by_stratum,
)
from lm_eval_calibration.recalibration.bias import largest_bias
from lm_eval_calibration.recalibration.resampled import resampled_metrics

DRAWS = 30
CHOICES_ALONE = [name for name, metric in CATALOG.items() if metric.kind == "choices"]


@pytest.fixture(scope="module", params=["plain", "ragged", "ties"])
def forecasts(request, docs_of):
    return docs_of(90, ragged=request.param != "plain", ties=request.param == "ties", seed=4).forecasts


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "full_ece"])
@pytest.mark.parametrize("n_bins", [10, 7])
def test_every_resampled_metric_is_the_metric_of_the_resample(name, n_bins, forecasts):
    if name == "smece":
        pytest.importorskip("relplot", reason="smece is relplot's")
    metric = CATALOG[name]
    options = {"n_bins": n_bins} if metric.takes_n_bins else {}
    first, second = forecasts.arguments(metric)

    def naive(docs):
        docs = docs.astype(int)
        rows = [first[i] for i in docs] if metric.kind == "choices" else first[docs]
        return metric.value(rows, second[docs], **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = bootstrap_estimates(naive, np.arange(90), draws=DRAWS, seed=3)
        found = resampled_metrics(forecasts, {name}, n_bins=n_bins, draws=DRAWS, seed=3)[name]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_intervals_are_those_of_the_paired_bootstrap(golden_docs):
    after = cross_fit("temperature", golden_docs).forecasts
    before = golden_docs.forecasts
    (_, change) = before_after(before, after, names=("ece",), draws=200)

    def difference(c, d, h):
        return metrics.ece(d, h) - metrics.ece(c, h)

    arrays = before.confidence, after.confidence, before.correct
    sd = metrics.bootstrap_stderr(difference, *arrays, draws=200)
    assert change.change == pytest.approx(difference(*arrays), abs=1e-15)
    bias_before, bias_after = (largest_bias(CATALOG["ece"], f, n_bins=10) for f in (before, after))
    ends = change.change - 1.96 * sd - bias_after, change.change + 1.96 * sd + bias_before
    assert (change.low, change.high) == pytest.approx(ends, abs=1e-5)


@pytest.mark.parametrize(("n", "expected", "within"), [(100, 0.096, 0.006), (1000, 0.031, 0.002)])
def test_the_largest_bias_is_the_error_of_a_calibrated_model(n, expected, within):
    confidence = np.random.default_rng(7).uniform(0.25, 1, n)
    labels = np.zeros(n, dtype=int)
    probs = [np.array([c, 1 - c]) if c > 0.5 else np.array([c, c, 1 - 2 * c]) for c in confidence]
    forecasts = Forecasts(confidence, labels, labels, probs)
    assert largest_bias(CATALOG["ece"], forecasts, n_bins=10) == pytest.approx(expected, abs=within)
    assert largest_bias(CATALOG["nll"], forecasts, n_bins=10) == 0
    sce = np.mean([metrics.sce(probs, calibrated_labels(probs, seed)) for seed in range(200)])
    assert largest_bias(CATALOG["sce"], forecasts, n_bins=10) == pytest.approx(sce, rel=0.05)


def calibrated_labels(probs, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(len(p), p=p / p.sum()) for p in probs])


@pytest.mark.parametrize(("said", "temperature"), [(2.0, 1.95), (1.0, 1.3)], ids=["becomes right", "was right"])
def test_intervals_of_the_change_hold_their_level(said, temperature, docs_of):
    """A map held fixed, 80 samples of 200 docs: the plain bootstrap interval of ece covers 67% of them."""
    names = ("nll", "brier_score", "ece")
    fixed = MapByGroup("temperature", {"": Temperature(temperature)}, frozenset())
    population = docs_of(60_000, temperature=said, seed=100)
    changes = before_after(population.forecasts, fixed.forecasts(population), names=names, draws=2)
    truth = {c.name: c.change for c in changes}
    covered = dict.fromkeys(names, 0)
    for seed in range(80):
        docs = docs_of(200, temperature=said, seed=seed)
        for c in before_after(docs.forecasts, fixed.forecasts(docs), names=names, draws=100)[1:]:
            covered[c.name] += c.low <= truth[c.name] <= c.high
    assert min(covered.values()) >= 0.9 * 80  # of 0.95 * 80 two standard errors less


def test_unchanged_forecasts_do_not_change(golden_docs):
    for change in before_after(golden_docs.forecasts, golden_docs.forecasts, draws=20):
        assert (change.change, change.low, change.high, change.verdict) == (0, 0, 0, "")


def test_every_metric_of_the_catalog_is_compared(golden_docs):
    pytest.importorskip("relplot", reason="smece is relplot's")
    after = cross_fit("temperature", golden_docs).forecasts
    names = {c.name for c in before_after(golden_docs.forecasts, after, draws=10)}
    assert names == {"acc", *CATALOG} - {"full_ece"}
    after = cross_fit("platt", golden_docs).forecasts
    names = {c.name for c in before_after(golden_docs.forecasts, after, draws=10)}
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
    impossible = Forecasts(np.array([1.0, 0.6]), np.array([0, 1]), np.array([1, 0]), np.array([[1.0, 0.0], [0.6, 0.4]]))
    (_, change) = before_after(impossible, impossible, names=("nll",), draws=20)
    assert change.before == math.inf
    assert math.isnan(change.low)
    assert change.verdict == ""
    one = Forecasts(np.array([0.6]), np.array([1]), np.array([0]), np.array([[0.6, 0.4]]))
    with pytest.warns(Warning, match="auroc is undefined"):
        (_, change) = before_after(one, one, names=("auroc",), draws=20)
    assert math.isnan(change.before)
    assert math.isnan(change.high)


def test_one_doc_says_nothing_about_others(docs_of):
    doc = docs_of(1)
    flatter = doc.with_probs(Temperature(1.5).predict_proba(doc.log_likelihoods))
    for change in before_after(doc.forecasts, flatter, names=("nll", "ece", "overconfidence"), draws=20)[1:]:
        assert change.change != 0
        assert math.isnan(change.low)
        assert change.verdict == ""


def test_equal_confidences_mapped_to_one_value_still_have_the_bias_of_the_bins(docs_of):
    n = 100
    correct = np.arange(n) % 2
    labels = 1 - correct
    before, after = (Forecasts(np.full(n, c), correct, labels) for c in (0.7, 0.51))
    (_, change, error) = before_after(before, after, names=("overconfidence", "ece"), draws=200)
    assert (change.low, change.high) == pytest.approx((-0.19, -0.19), abs=1e-12)  # for each doc the same
    assert error.low < -0.19 - 0.03
    assert error.high > -0.19 + 0.03


def test_a_rate_of_few_docs_has_an_interval_that_knows_it():
    correct = np.array([1, 0] * 20 + [1])
    before = Forecasts(np.full(41, 0.95), correct, 1 - correct)
    after = Forecasts(np.append(np.full(40, 0.6), 0.95), correct, 1 - correct)
    (_, change) = before_after(before, after, names=("confident_error_rate",), draws=50)
    assert (change.before, change.after) == (20 / 41, 0)  # of one doc, which says next to nothing
    assert change.verdict == ""
    exact = binomtest(20, 41).proportion_ci(method="exact")
    high = binomtest(0, 1).proportion_ci(method="exact").high
    expected = -20 / 41 - (exact.high - 20 / 41), -20 / 41 + math.hypot(high, 20 / 41 - exact.low)
    assert (change.low, change.high) == pytest.approx(expected, abs=1e-9)
    nobody = Forecasts(np.full(41, 0.6), correct, 1 - correct)
    with pytest.warns(Warning, match="confident_error_rate is undefined"):
        (_, change) = before_after(before, nobody, names=("confident_error_rate",), draws=50)
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


def test_a_threshold_is_judged_with_exact_intervals():
    point = judge_threshold([0.9, 0.8, 0.3, 0.95], [1, 0, 0, 1], 0.8, wanted=0.1)
    exact = binomtest(1, 3).proportion_ci(method="exact")
    assert point.error_rate == pytest.approx((1 / 3, exact.low, exact.high), abs=1e-9)
    exact = binomtest(3, 4).proportion_ci(method="exact")
    assert point.coverage == pytest.approx((3 / 4, exact.low, exact.high), abs=1e-9)
    assert (point.n_answered, point.n_docs) == (3, 4)
    none = judge_threshold([0.9], [1], math.inf, wanted=0.1)
    assert none.n_answered == 0
    assert math.isnan(none.error_rate[0])
    assert none.coverage[0] == 0
    all_right = judge_threshold([0.9] * 10, [1] * 10, 0.5, wanted=0.1)
    assert all_right.error_rate[:2] == (0, 0)
    assert all_right.error_rate[2] == pytest.approx(binomtest(0, 10).proportion_ci(method="exact").high)


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


def test_strata_are_pooled_docs_with_standard_errors(docs_of):
    docs = docs_of(300, ragged=True)
    strata = np.array(["old", "young", "old"] * 100)
    names = tuple(name for name in CATALOG if name not in ("smece", "full_ece"))
    found = {(s.stratum, s.name): s for s in metrics_by_stratum(docs.forecasts, strata, n_bins=5, names=names)}
    assert {stratum for stratum, _ in found} == {"old", "young"}
    assert {name for _, name in found} == {"acc", *names}
    old = docs.take(np.flatnonzero(strata == "old"))
    ece = found["old", "ece"]
    assert ece.n_docs == 200
    assert ece.value == metrics.ece(old.forecasts.confidence, old.forecasts.correct, n_bins=5)
    assert ece.stderr == metrics.ece_stderr(old.forecasts.confidence, old.forecasts.correct, n_bins=5)
    assert found["old", "nll"].value == metrics.nll(old.forecasts.probs, old.labels)
    assert found["old", "acc"].stderr == pytest.approx(np.std(old.forecasts.correct, ddof=1) / math.sqrt(200))
