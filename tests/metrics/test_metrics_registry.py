"""The registry: a metric that is defined here, in one place, is in every list; and what a formula alone gets."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG, CORE, GENERATION_CATALOG, GENERATION_CORE, Run, by_stratum, compare
from lm_eval_calibration.metrics.registry import define, register, registered, temporarily
from lm_eval_calibration.metrics.token_sums import check_gap_sums
from lm_eval_calibration.metrics.uncertainty.intervals import mean_of
from lm_eval_calibration.metrics.validation import check_choices, check_top_label


def mean_deviation(confidence, correct):
    """Mean absolute deviation of confidence from correct: mean_i |c_i - h_i|."""
    conf, hit = check_top_label(confidence, correct)
    return float(np.mean(np.abs(conf - hit)))


def gold_rank(probs, labels):
    """Mean number of choices that are more probable than gold."""
    choices = check_choices(probs, labels)
    gold = choices.probs[choices.hits == 1]
    return float(np.sum(choices.probs > gold[choices.doc]) / len(gold))


def total_gap(gap_sums, n_positions):
    """Largest gap of any bin, a position."""
    gaps, n = check_gap_sums(gap_sums, n_positions)
    return float(np.abs(gaps.sum(axis=0)).max() / n.sum())


@pytest.fixture
def deviation():
    with temporarily(define(mean_deviation, "top_label", higher_is_better=False, core=("choices",))) as metric:
        yield metric


def test_a_metric_defined_here_is_in_every_list(deviation):
    assert CATALOG["mean_deviation"] is GENERATION_CATALOG["mean_deviation"] is deviation is registered()[-1]
    assert [*CORE][-1] == "mean_deviation" == list(CATALOG)[-1]
    assert "mean_deviation" not in GENERATION_CORE
    assert not deviation.takes_n_bins
    for suffix in ("", "_stderr", "_interval", "_null"):
        function = getattr(metrics, f"mean_deviation{suffix}")
        assert function.__name__ == f"mean_deviation{suffix}" in dir(metrics)


def test_and_nowhere_afterwards(deviation):
    with pytest.raises(ValueError, match="there is a metric 'mean_deviation' already"):
        register(deviation)
    with temporarily(replace(deviation, name="again")):
        assert "again" in CATALOG
    assert "again" not in CATALOG
    with pytest.raises(AttributeError, match="no attribute 'median_deviation_stderr'"):
        metrics.median_deviation_stderr  # noqa: B018


def test_a_formula_alone_gets_error_interval_null_and_comparison(deviation, make_sample):
    one, other = make_sample(300, seed=1), make_sample(300, seed=2)
    values = np.abs(one.confidence - one.correct)
    stderr = np.std(values, ddof=1) / np.sqrt(300)
    arrays = one.confidence, one.correct
    assert deviation.value(*arrays) == pytest.approx(values.mean())
    assert deviation.stderr(*arrays) == pytest.approx(stderr, rel=0.1)
    assert deviation.stderr(*arrays, draws=50, seed=1) != deviation.stderr(*arrays, draws=50, seed=2)
    low, high = deviation.interval(*arrays)
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * stderr, values.mean() + 1.96 * stderr), abs=0.4 * stderr
    )
    null = deviation.null(*arrays)
    assert null.value == deviation.value(*arrays)
    assert null.mean == pytest.approx(np.mean(2 * one.confidence * (1 - one.confidence)), abs=0.005)
    assert null.p_value < 0.05

    differences = np.abs(other.confidence - other.correct) - values
    runs = Run(*arrays), Run(other.confidence, other.correct)
    found = compare(*runs)["mean_deviation"]
    assert found.difference == pytest.approx(differences.mean())
    half = 1.96 * np.std(differences, ddof=1) / np.sqrt(300)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    same = compare(runs[0], runs[0], names=["mean_deviation"])["mean_deviation"]
    assert same.difference == 0
    assert same.high - same.low < 0.1 * half
    rows = by_stratum(runs[0], np.arange(300) % 2, names=["mean_deviation"])
    assert [row.value for row in rows] == pytest.approx([values[::2].mean(), values[1::2].mean()])
    assert all(row.low < row.value < row.high for row in rows)


def test_one_value_a_doc_gets_a_t_interval(make_sample):
    sample = make_sample(200)

    def deviations(conf, hit):
        return np.abs(conf - hit)

    metric = define(mean_deviation, "top_label", higher_is_better=False, **mean_of(deviations, limits=(0, 1)))
    values = deviations(sample.confidence, sample.correct)
    stderr = np.std(values, ddof=1) / np.sqrt(200)
    assert metric.stderr(sample.confidence, sample.correct) == pytest.approx(stderr, abs=1e-12)
    low, high = metric.interval(sample.confidence, sample.correct)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=1e-12)
    assert high - low == pytest.approx(2 * 1.97 * stderr, rel=0.01)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_formula_of_choices(make_sample, ragged):
    sample = make_sample(80, ragged=ragged)
    metric = define(gold_rank, "choices", higher_is_better=False)
    low, high = metric.interval(sample.probs, sample.labels)
    assert low < metric.value(sample.probs, sample.labels) < high
    assert metric.stderr(sample.probs, sample.labels) == pytest.approx((high - low) / 3.92, rel=0.2)
    assert 0 < metric.null(sample.probs, sample.labels).mean < metric.value(sample.probs, sample.labels)
    assert metric.tables == ("choices",)


def test_a_formula_of_the_vocabulary(make_sample):
    sample = make_sample(300, k=8)
    gaps = metrics.position_gap_sums(sample.probs, sample.labels).reshape(100, 3, 10).sum(axis=1)
    metric = define(total_gap, "full_vocabulary", higher_is_better=False)
    with temporarily(metric):
        null = metrics.total_gap_null(gaps, np.full(100, 3))
    assert 0 < null.mean < null.upper < null.value == metric.value(gaps, np.full(100, 3))


def test_where_a_formula_is_undefined_its_reason_is_told(deviation):
    def first_class(confidence, correct):
        conf, hit = check_top_label(confidence, correct)
        if not hit.any():
            warnings.warn("first_class is undefined: no doc is correct", UndefinedMetricWarning, stacklevel=2)
            return float("nan")
        return float(conf[hit == 1].mean())

    metric = define(first_class, "top_label", higher_is_better=None)
    assert metric.undefined_reason([0.5], [0]) == "first_class is undefined: no doc is correct"
    assert metric.undefined_reason([0.5], [1]) is None
    for function in (metric.value, metric.stderr, metric.interval, metric.null):
        with pytest.warns(UndefinedMetricWarning, match="no doc is correct"):
            assert np.isnan(function([0.5, 0.2], [0, 0])).all()
    for function in (deviation.stderr, deviation.interval):
        with pytest.warns(UndefinedMetricWarning, match="at least two docs"):
            assert np.isnan(function([0.5], [0])).all()


def test_signatures_are_the_metric_s_own():
    with pytest.raises(TypeError, match="n_bin"):
        metrics.ece_stderr([0.5], [1], n_bin=3)
    with pytest.raises(TypeError, match="draws"):
        metrics.brier_score_stderr([[0.5, 0.5]], [1], draws=3)
    with pytest.raises(TypeError, match="correct"):
        metrics.ece_null([0.5])
    low, high = metrics.ece_interval(confidence=[0.5, 0.6], correct=[1, 0], n_bins=2)
    assert 0 <= low < high <= 1
    assert "Standard error of :func:`ece`" in metrics.ece_stderr.__doc__


def test_cores_are_those_of_the_tables():
    assert [*CORE] == ["brier_score", "ece", "ace", "full_ece", "auroc"] == [*CATALOG][:5]
    assert [*GENERATION_CORE] == ["brier_top_label", "ece", "ace", "full_ece", "auroc", "skill_score"]
    assert GENERATION_CATALOG["ace"].kind == "top_label"
    assert [*metrics.CORPUS_CATALOG] == ["full_ece", "ece", "token_accuracy"]
    assert "acc" not in CATALOG
    assert [*metrics.COMPARED] == ["acc", *CATALOG]
