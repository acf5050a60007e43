"""Intervals of cross-fitted changes know that the maps were fitted."""

import numpy as np
import pytest
from scipy.stats import t
from simulations import regimes
from simulations.cross_fitting import docs_of_sample, temperature_2

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.recalibration import METHODS, MapByGroup, before_after, cross_fit, cross_fitted_changes
from lm_eval_calibration.recalibration.jackknife import without_each_fold

BY_ORDER = {"auroc", "aurc", "augrc", "auprc"}


def test_without_a_fold_its_docs_are_neither_fitted_nor_tested_on(docs_of):
    docs = docs_of(150, seed=4)
    crossed = cross_fit("temperature", docs, n_folds=4)
    refits = without_each_fold("temperature", docs, crossed)
    assert len(refits) == 4
    for left_out, refit in enumerate(refits):
        assert list(refit.rows) == list(np.flatnonzero(crossed.fold != left_out))
        for row, confidence in list(zip(refit.rows, refit.forecasts.confidence, strict=True))[::17]:
            others = np.flatnonzero((crossed.fold != left_out) & (crossed.fold != crossed.fold[row]))
            fitted = MapByGroup.fit("temperature", docs.take(others))
            assert fitted.forecasts(docs.take(np.array([row]))).confidence[0] == confidence


def test_the_interval_holds_that_of_the_jackknife_and_the_one_of_fixed_maps(docs_of):
    docs = docs_of(200, seed=5)
    crossed = cross_fit("platt", docs)
    fixed = {change.name: change for change in before_after(docs.forecasts, crossed.forecasts)}
    found = {change.name: change for change in cross_fitted_changes("platt", docs, crossed)}
    brier = CATALOG["brier_top_label"].value
    changes = []
    for left_out in range(5):
        rest = docs.take(np.flatnonzero(crossed.fold != left_out))
        of_rest, fold = np.empty(len(rest)), crossed.fold[crossed.fold != left_out]
        for k in set(fold.tolist()):
            fitted = MapByGroup.fit("platt", rest.take(np.flatnonzero(fold != k)))
            of_rest[fold == k] = fitted.forecasts(rest.take(np.flatnonzero(fold == k))).confidence
        before = rest.forecasts
        changes.append(brier(of_rest, before.correct) - brier(before.confidence, before.correct))
    half = t.ppf(0.975, 4) * np.sqrt(4 / 5 * np.sum((np.array(changes) - np.mean(changes)) ** 2))
    change, as_given = found["brier_top_label"], fixed["brier_top_label"]
    assert change.low == pytest.approx(min(as_given.low, change.change - half), abs=1e-12)
    assert change.high == pytest.approx(max(as_given.high, change.change + half), abs=1e-12)
    assert (change.before, change.after) == (as_given.before, as_given.after)


def test_metrics_of_the_docs_order_have_no_interval_and_no_word(docs_of):
    docs = docs_of(200, seed=6)
    changes = {c.name: c for c in cross_fitted_changes("isotonic", docs, cross_fit("isotonic", docs))}
    assert {name for name, change in changes.items() if np.isnan(change.low)} == BY_ORDER
    assert {name for name, metric in CATALOG.items() if metric.by_order} == BY_ORDER
    assert all(changes[name].verdict == "" and np.isfinite(changes[name].after) for name in BY_ORDER)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, metric in CATALOG.items() if metric.kind == "top_label"])
def test_metrics_of_order_are_those_that_any_rising_map_leaves(name, docs_of):
    if name == "smece":
        pytest.importorskip("relplot")
    one = docs_of(300, seed=7).forecasts
    values = [CATALOG[name].value(confidence, one.correct) for confidence in (one.confidence, one.confidence**2 / 2)]
    assert (values[0] == pytest.approx(values[1], abs=1e-12)) == CATALOG[name].by_order


def test_two_folds_leave_no_interval(docs_of):
    docs = docs_of(100, seed=8)
    changes = cross_fitted_changes("platt", docs, cross_fit("platt", docs, n_folds=2), names=["ece", "brier_top_label"])
    assert all(np.isnan(change.low) and change.verdict == "" for change in changes[1:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_a_clearly_overconfident_model_is_called_better_after_recalibration(method):
    rng = np.random.default_rng(1)
    said = []
    for _ in range(8):
        docs = docs_of_sample(temperature_2(rng, 500))
        crossed = cross_fit(method, docs)
        said.append({c.verdict for c in cross_fitted_changes(method, docs, crossed, names=["ece", "brier_top_label"])})
    assert sum("better" in verdicts for verdicts in said) >= 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [name for name in METHODS if name != "beta"])
def test_calibrated_docs_are_not_called_better(method):
    """Of 30 samples up to 4 would be 3 standard errors above 5%."""
    rng = np.random.default_rng(2)
    regime = regimes.draw_regime(rng, n_min=100, n_max=100)._replace(law="spread", shape="calibrated", n_choices=4)
    names = ["ece", "brier_top_label", "overconfidence"]
    n_better = dict.fromkeys(names, 0)
    for _ in range(30):
        docs = docs_of_sample(regimes.draw_sample(rng, regime))
        for change in cross_fitted_changes(method, docs, cross_fit(method, docs), names=names)[1:]:
            n_better[change.name] += change.verdict == "better"
    assert max(n_better.values()) <= 4, n_better
