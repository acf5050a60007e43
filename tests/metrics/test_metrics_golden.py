"""The golden table: values that other implementations agree with."""

import pytest

from lm_eval_calibration import metrics

TOP_LABEL = [
    ("ece", {"n_bins": 10}, 0.16070688641424),
    ("ece", {"n_bins": 15}, 0.16063008170746),
    ("ace_top_label", {"n_bins": 10}, 0.15956693767445),
    ("ace_top_label", {"n_bins": 15}, 0.15956693767445),
    ("mce", {"n_bins": 10}, 0.28447218595294),
    ("mce", {"n_bins": 15}, 0.35438134433213),
    ("rms_ce", {"n_bins": 10}, 0.17062732316209),
    ("rms_ce", {"n_bins": 15}, 0.17202154042823),
    ("ce_l2_debiased", {"n_bins": 15}, 0.168574513),
    ("brier_top_label", {}, 0.24210295400627),
    ("auroc", {}, 0.68365515313762),
    ("aurc", {}, 0.236666458886),
    ("overconfidence", {}, 0.7810669376744606 - 0.6215),
]
CHOICES = [
    ("ace", {"n_bins": 10}, 0.07774639799416),
    ("ace", {"n_bins": 15}, 0.07995773126736),
    ("sce", {"n_bins": 15}, 0.081022552),
    ("full_ece", {"n_bins": 10}, 0.32131256889239),
    ("full_ece", {"n_bins": 15}, 0.32131256889239),
    ("full_ece_choices", {"n_bins": 10}, 0.32131256889239),
    ("full_ece_choices", {"n_bins": 15}, 0.32131256889239),
    ("brier_score", {}, 0.54569135914573),
    ("nll", {}, 1.05832301401829),
]


def test_sample_is_the_golden_one(golden):
    assert golden.correct.mean() == 0.6215
    assert golden.confidence.mean() == pytest.approx(0.7810669376744606, abs=1e-15)


@pytest.mark.parametrize(("name", "options", "expected"), TOP_LABEL)
def test_top_label(golden, name, options, expected):
    value = getattr(metrics, name)(golden.confidence, golden.correct, **options)
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "options", "expected"), CHOICES)
def test_choices(golden, name, options, expected):
    value = getattr(metrics, name)(golden.probs, golden.labels, **options)
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-9)


def test_smece(golden):
    pytest.importorskip("relplot", reason="smece is computed by relplot")
    assert metrics.smece(golden.confidence, golden.correct) == pytest.approx(0.160350927986, abs=1e-9)


def test_ten_bins_is_the_default(golden):
    with_bins = [metric for metric in metrics.CATALOG.values() if metric.takes_n_bins]
    assert len(with_bins) == 9
    for metric in with_bins:
        args = golden.arrays(metric.kind)
        assert metric.value(*args) == metric.value(*args, n_bins=10)
    by_sums = metrics.CATALOG["full_ece"].value(*golden.arrays("full_vocabulary"))
    assert metrics.full_ece(golden.probs, golden.labels) == by_sums


def test_catalog_is_complete():
    exported = {name.removesuffix("_stderr") for name in metrics.__all__ if name.endswith("_stderr")}
    # acc is the stock task's, the tokens' metrics are of corpora alone, and ece_values is of few values alone.
    elsewhere = {"acc", "token_ece", "token_accuracy", "ece_values"}
    not_catalogued = {"bootstrap", "corp_decomposition", "ace_one_class", "full_ece_from_gap_sums", *elsewhere}
    assert set(metrics.CATALOG) == exported - not_catalogued
    for name, metric in metrics.CATALOG.items():
        forms = "full_ece_from_gap_sums" if name == "full_ece" else name
        assert metric.name == name
        assert metric.value is getattr(metrics, forms)
        assert metric.stderr is getattr(metrics, f"{forms}_stderr")
    assert set(metrics.CORE) <= set(metrics.CATALOG)
    better = {True: {"auroc", "auprc", "skill_score"}, None: {"overconfidence"}}
    for direction, names in better.items():
        assert {m.name for m in metrics.CATALOG.values() if m.higher_is_better is direction} == names
