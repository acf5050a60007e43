"""The maps one by one: their fit against other ways to it, their edges, their JSON."""

import json
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.exceptions import NotFittedError

from lm_eval_calibration import metrics
from lm_eval_calibration.recalibration import (
    METHODS,
    Beta,
    Grouped,
    HistogramBinning,
    Isotonic,
    MapByGroup,
    Platt,
    RecalibrationWarning,
    Temperature,
)


def nll_at(temperature, rows, labels):
    return np.mean([-log_softmax(row / temperature)[label] for row, label in zip(rows, labels, strict=True)])


def test_temperature_of_the_golden_sample(golden_docs):
    fitted = Temperature().fit(golden_docs.log_likelihoods, golden_docs.labels)
    assert fitted.temperature == pytest.approx(1.94890776, abs=5e-8)
    probs = fitted.predict_proba(golden_docs.log_likelihoods)
    confidence = probs.max(axis=1)
    assert metrics.ece(confidence, golden_docs.forecasts.correct) == pytest.approx(0.0199767, abs=5e-8)
    np.testing.assert_allclose(probs, softmax(golden_docs.log_likelihoods / fitted.temperature, axis=1), atol=1e-15)


def test_temperature_as_scikit_learn_fits_it(golden_docs):
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    theirs = calibration._TemperatureScaling().fit(golden_docs.log_likelihoods, golden_docs.labels)
    ours = Temperature().fit(golden_docs.log_likelihoods, golden_docs.labels)
    assert ours.temperature == pytest.approx(1 / theirs.beta_, rel=1e-6)
    np.testing.assert_allclose(
        ours.predict_proba(golden_docs.log_likelihoods), theirs.predict(golden_docs.log_likelihoods), atol=1e-7
    )


@pytest.mark.parametrize(("seed", "truth"), [(1, 0.5), (2, 1.0), (3, 4.0)])
def test_temperature_of_ragged_docs_minimises_the_nll(docs_of, seed, truth):
    docs = docs_of(500, temperature=truth, k=6, seed=seed, ragged=True)
    fitted = Temperature().fit(docs.log_likelihoods, docs.labels)
    naive = minimize_scalar(
        lambda x: nll_at(np.exp(x), docs.log_likelihoods, docs.labels), bounds=(-4, 4), options={"xatol": 1e-10}
    )
    assert fitted.temperature == pytest.approx(np.exp(naive.x), rel=1e-6)
    probs = fitted.predict_proba(docs.log_likelihoods)
    for row, p in zip(docs.log_likelihoods, probs, strict=True):
        np.testing.assert_allclose(p, softmax(row / fitted.temperature), atol=1e-15)


def test_adding_a_number_to_a_docs_log_likelihoods_is_no_matter(golden_docs):
    shifted = golden_docs.log_likelihoods - 1e4
    one = Temperature().fit(golden_docs.log_likelihoods, golden_docs.labels).temperature
    assert Temperature().fit(shifted, golden_docs.labels).temperature == pytest.approx(one, rel=1e-9)


def test_an_impossible_choice_stays_impossible_and_weighs_nothing(docs_of):
    docs = docs_of(200, k=3)
    with_impossible = np.column_stack([docs.log_likelihoods, np.full(200, -np.inf)])
    one = Temperature().fit(docs.log_likelihoods, docs.labels)
    other = Temperature().fit(with_impossible, docs.labels)
    assert other.temperature == pytest.approx(one.temperature, rel=1e-12)
    assert (other.predict_proba(with_impossible)[:, 3] == 0).all()


def test_an_impossible_gold_choice_is_left_out_with_a_reason(docs_of):
    docs = docs_of(100)
    rows = [*docs.log_likelihoods, np.array([0.0, -np.inf])]
    with pytest.warns(RecalibrationWarning, match="gold choice has log-likelihood -inf say nothing"):
        fitted = Temperature().fit(rows, [*docs.labels, 1])
    assert fitted.temperature == pytest.approx(Temperature().fit(docs.log_likelihoods, docs.labels).temperature)


@pytest.mark.parametrize(
    ("rows", "labels", "reason"),
    [
        ([[0.0, -1.0], [-2.0, -1.0]], [0, 1], "every doc's gold choice is its most probable one"),
        ([[0.0, -1.0]], [0], "every doc's gold choice is its most probable one"),
        ([[0.0, 0.0], [-1.0, -1.0, -1.0]], [1, 0], "the choices of each doc are equally likely"),
        ([[0.0, -np.inf]], [1], "no gold choice has a finite log-likelihood"),
    ],
)
def test_docs_that_do_not_say_what_the_temperature_is_leave_it_at_1_with_a_reason(rows, labels, reason):
    with pytest.warns(RecalibrationWarning) as caught:
        assert Temperature().fit(rows, labels).temperature == 1
    assert reason in str(caught[-1].message)


def test_a_temperature_beyond_its_bounds_is_the_bound_with_a_reason():
    with pytest.warns(RecalibrationWarning, match="above 100: the flatter"):
        assert Temperature().fit([[0.0, -1.0], [0.0, -1.0]], [1, 1]).temperature == 100
    nearly = [[0.0, -1e-4]] * 100
    with pytest.warns(RecalibrationWarning, match=r"below 0\.01: the sharper"):
        assert Temperature().fit(nearly, [0] * 99 + [1]).temperature == 0.01


def test_one_doc_that_is_wrong_by_little_and_identical_docs_have_a_temperature():
    assert Temperature().fit([[0.0, -1.0, -4.0]], [1]).temperature > 1
    same = Temperature().fit([[0.0, -1.0]] * 10, [0] * 7 + [1] * 3)
    assert expit(1 / same.temperature) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([[0.0, np.nan]], [0], r"log_likelihoods\[0\] is \[0.0, nan\]"),
        ([[0.0, 1.0], [np.inf, 1.0]], [0, 0], r"log_likelihoods\[1\]"),
        ([[-np.inf, -np.inf]], [0], "its largest value must be a number"),
        ([[0.0], []], [0, 0], r"log_likelihoods\[1\] has shape \(0,\)"),
        ([], [], "log_likelihoods is empty"),
        ([[0.0, 1.0]], [2], r"labels\[0\] is 2, but row 0 has 2 choices"),
        ([[0.0, 1.0]], [0, 1], "has 1 rows, but labels has 2"),
        ([[0.0, 1.0]], [0.5], "labels must be integers"),
        ("abc", [0], "must be an"),
    ],
)
def test_bad_log_likelihoods_are_named(rows, labels, message):
    with pytest.raises(ValueError, match=message):
        Temperature().fit(rows, labels)


@pytest.fixture(scope="module")
def overconfident():
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.3, 1, 1500)
    return confidence, (rng.random(1500) < confidence**2).astype(int)


def test_platt_as_scikit_learn_fits_it(overconfident):
    calibration = pytest.importorskip("sklearn.calibration")
    confidence, correct = overconfident
    a, b = calibration._sigmoid_calibration(logit(confidence), correct)
    fitted = Platt().fit(confidence, correct)
    np.testing.assert_allclose((fitted.slope, fitted.intercept), (-a, -b), rtol=1e-4)
    np.testing.assert_allclose(
        fitted.predict_proba(confidence), expit(fitted.slope * logit(confidence) + fitted.intercept), atol=1e-15
    )


def test_platt_is_at_a_minimum_of_its_loss(overconfident):
    confidence, correct = overconfident
    fitted = Platt().fit(confidence, correct)
    right, wrong = correct.sum(), (1 - correct).sum()
    residual = fitted.predict_proba(confidence) - np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
    assert abs(residual.mean()) < 1e-9
    assert abs((residual * logit(confidence)).mean()) < 1e-9


def test_isotonic_is_scikit_learns(overconfident):
    from sklearn.isotonic import IsotonicRegression

    confidence, correct = np.round(overconfident[0], 2), overconfident[1]
    theirs = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    asked = np.linspace(0, 1, 777)
    ours = Isotonic().fit(confidence, correct)
    np.testing.assert_allclose(ours.predict_proba(asked), theirs.predict(asked), atol=1e-12)


def test_beta_is_betacals(overconfident):
    betacal = pytest.importorskip("betacal", reason="beta calibration is fitted by betacal")
    filters = list(warnings.filters)
    fitted = Beta().fit(*overconfident)
    assert warnings.filters == filters  # betacal turns all warnings off
    with warnings.catch_warnings():
        theirs = betacal.BetaCalibration("abm").fit(*overconfident)
    asked = np.linspace(0, 1, 101)
    np.testing.assert_allclose(fitted.predict_proba(asked), theirs.predict(asked), atol=1e-12)
    with pytest.warns(RecalibrationWarning, match="beta left as the identity: every doc .* is right"):
        assert Beta().fit([0.5, 0.7], [1, 1]) == Beta.identity()


def test_beta_without_betacal_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "betacal", None)
    with pytest.raises(ImportError, match=r"beta calibration needs the package betacal: pip install betacal"):
        Beta().fit([0.5, 0.7], [1, 0])


def test_histogram_binning_by_hand():
    fitted = HistogramBinning().fit([0.3, 0.35, 0.39, 0.8], [1, 0, 0, 1])
    assert fitted.accuracies == (None, None, None, 1 / 3, None, None, None, None, 1.0, None)
    np.testing.assert_array_equal(fitted.predict_proba([0.3, 0.85, 0.5, 1.0]), [1 / 3, 1.0, 0.5, 1.0])


@pytest.mark.parametrize("method", [Platt, Isotonic, HistogramBinning])
def test_all_right_is_a_constant_with_a_reason(method):
    with pytest.warns(RecalibrationWarning, match="every doc it was to be fitted on is right"):
        fitted = method().fit([0.6, 0.7, 0.8], [1, 1, 1])
    expected = 4 / 5 if method is Platt else 1
    np.testing.assert_allclose(fitted.predict_proba([0.65, 0.8][method is HistogramBinning :]), expected, atol=1e-9)


def test_equal_confidences_have_one_value():
    with pytest.warns(RecalibrationWarning, match="all confidences are equal"):
        fitted = Platt().fit([0.9] * 4, [1, 0, 0, 1])
    np.testing.assert_allclose(fitted.predict_proba([0.9, 0.1]), 0.5, atol=1e-12)


@pytest.mark.parametrize("method", ["platt", "isotonic", "histogram", "beta"])
def test_maps_of_confidence_take_0_and_1_and_refuse_other_things(method, overconfident):
    confidence, correct = np.append(overconfident[0], [0.0, 1.0]), np.append(overconfident[1], [1, 0])
    if method == "beta":
        pytest.importorskip("betacal", reason="beta calibration is fitted by betacal")
    fitted = METHODS[method]().fit(confidence, correct)
    mapped = fitted.predict_proba([0.0, 0.5, 1.0])
    assert ((mapped >= 0) & (mapped <= 1)).all()
    for bad in ([1.2], [np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="confidence"):
            fitted.predict_proba(bad)


@pytest.mark.parametrize("method", METHODS.values())
def test_the_identity_changes_nothing_and_unfitted_maps_say_so(method, golden_docs):
    if method.takes == "choices":
        probs = golden_docs.forecasts.probs
        np.testing.assert_array_equal(method.identity().predict_proba(golden_docs.log_likelihoods), probs)
    else:
        asked = np.linspace(0, 1, 101)
        inputs = Grouped(asked, {}) if method.takes == "groups" else asked
        np.testing.assert_allclose(method.identity().predict_proba(inputs), asked, atol=1e-15)
    with pytest.raises(NotFittedError, match="call fit first"):
        method().predict_proba(Grouped([0.5], {}) if method.takes == "groups" else [0.5])
    with pytest.raises(NotFittedError):
        method().to_dict()


@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip(method, golden_docs):
    if method == "beta":
        pytest.importorskip("betacal", reason="beta calibration is fitted by betacal")
    fitted = MapByGroup.fit(method, golden_docs)
    data = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    again = MapByGroup.from_dict(data)
    assert again == fitted
    one, other = (m.forecasts(golden_docs).confidence for m in (fitted, again))
    np.testing.assert_array_equal(one, other)
    one_map = METHODS[method].from_dict(data["maps"][""])
    assert one_map == fitted.maps[""]
    for version in (0, 2, None, "1"):
        with pytest.raises(ValueError, match=f"format version {version!r} of the map is not 1"):
            MapByGroup.from_dict({**data, "format": version})
        with pytest.raises(ValueError, match=f"format version {version!r} of the map is not 1"):
            METHODS[method].from_dict({**data["maps"][""], "format": version})


def test_maps_that_are_not_ours_are_refused():
    with pytest.raises(ValueError, match="no method 'vector'; there are temperature, platt"):
        MapByGroup.from_dict({"format": 1, "method": "vector"})
    with pytest.raises(ValueError, match="not a recalibration map"):
        MapByGroup.from_dict({"format": 1, "method": "platt"})
    with pytest.raises(ValueError, match="the map's method is 'platt', not 'temperature'"):
        Temperature.from_dict({"format": 1, "method": "platt"})
    with pytest.raises(ValueError, match="a temperature map has temperature; this one is"):
        Temperature.from_dict({"format": 1, "method": "temperature", "temperature": 1.0, "bias": 0.0})
    with pytest.raises(ValueError, match=r"temperature is -1\.0"):
        Temperature.from_dict({"format": 1, "method": "temperature", "temperature": -1.0})
