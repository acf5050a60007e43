"""Bins, traps seen in other code, what is refused and with which words, and what is undefined."""

import re
import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics

TOP_LABEL = sorted(m.name for m in metrics.CATALOG.values() if m.kind == "top_label")
CHOICES = sorted(m.name for m in metrics.CATALOG.values() if m.kind == "choices")


def value_and_stderr(name):
    return metrics.CATALOG[name].value, metrics.CATALOG[name].stderr


# Bins


@pytest.mark.parametrize("n_bins", range(1, 101))
def test_a_bin_starts_at_its_edge(n_bins):
    """m / n_bins opens bin m, the float before it is in bin m - 1, and 1 is in the last bin."""
    edges = np.array([float(Fraction(m, n_bins)) for m in range(n_bins)])
    assert np.array_equal(metrics.bin_edges(n_bins), np.append(edges, 1))
    assert np.array_equal(metrics.bin_index(edges, n_bins), np.arange(n_bins))
    below = np.nextafter(edges[1:], 0)
    assert np.array_equal(metrics.bin_index(below, n_bins), np.arange(n_bins - 1))
    assert metrics.bin_index([1.0, np.nextafter(1, 0)], n_bins).tolist() == [n_bins - 1] * 2


def test_bins_where_other_rules_go_wrong():
    assert metrics.bin_index([0.3, 0.6, 0.7], 10).tolist() == [3, 6, 7]
    assert [np.histogram([p], 10, (0, 1))[0].argmax() for p in (0.3, 0.6, 0.7)] != [3, 6, 7]
    assert metrics.bin_index([15 / 22], 22).tolist() == [15] != [int(15 / 22 * 22)]


def test_bin_index_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=re.escape("values[1] is nan")):
        metrics.bin_index([0.5, np.nan])
    with pytest.raises(ValueError, match=re.escape("values[0] is -0.1, outside [0, 1]")):
        metrics.bin_index([-0.1])


def test_zero_and_one_are_ordinary_values():
    """The trap: p == 1 in an extra bin or dropped, p == 0 dropped."""
    assert metrics.ece([1.0, 1.0, 0.95, 0.95], [1, 0, 1, 1]) == pytest.approx(abs(3 - 3.9) / 4)
    assert metrics.mce([1.0, 1.0, 0.95, 0.95], [1, 0, 1, 1]) == pytest.approx(abs(3 - 3.9) / 4)
    assert metrics.ece([0.0, 0.0, 0.05, 0.05], [1, 1, 0, 0]) == pytest.approx((2 - 0.1) / 4)
    for name in ("ece", "mce", "rms_ce", "ace_top_label", "brier_top_label"):
        assert metrics.CATALOG[name].value([0.0, 1.0], [1, 0]) == 1
        assert metrics.CATALOG[name].value([0.0, 1.0], [0, 1]) == 0
    assert metrics.sce([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 1
    assert metrics.ace([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 1
    assert metrics.full_ece_choices([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 2
    assert metrics.brier_score([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 2


def test_the_last_bin_counts_at_a_hundred_docs():
    """The trap: code that steps through fixed numbers of docs and skips the last step returns 0."""
    for name in ("ece", "rms_ce", "ace_top_label"):
        for n in (99, 100, 150, 199, 200):
            assert metrics.CATALOG[name].value(np.full(n, 0.75), np.zeros(n)) == pytest.approx(0.75)


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 1000])
def test_a_constant_confidence_has_one_gap(n):
    confidence, correct = np.full(n, 0.6), np.arange(n) % 4 == 0
    expected = abs(correct.mean() - 0.6)
    for name in ("ece", "mce", "rms_ce", "ace_top_label"):
        assert metrics.CATALOG[name].value(confidence, correct) == pytest.approx(expected, abs=1e-12)
    assert metrics.ace_one_class(confidence, correct) == pytest.approx(expected, abs=1e-12)
    if n > 1:
        assert metrics.auroc(confidence, correct) == 0.5
    if n >= 20:
        bias = correct.mean() * (1 - correct.mean()) / (n - 1)
        assert metrics.ce_l2_debiased(confidence, correct) == pytest.approx(np.sqrt(expected**2 - bias))


# dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_small_floats_are_computed_in_float64(make_sample, dtype):
    sample = make_sample(5000, ties=True)  # eighths: exact in every dtype, and so must be the values
    for name in TOP_LABEL:
        if name != "smece":
            value = metrics.CATALOG[name].value
            assert value(sample.confidence.astype(dtype), sample.correct) == value(*sample[2:])
    for name in CHOICES:
        value = metrics.CATALOG[name].value
        assert value(sample.probs.astype(dtype), sample.labels) == value(*sample[:2])


def test_float32_sums_do_not_drift():
    """The trap: 2**24 + 1 is no float32, so a float32 count or sum stops growing there."""
    n = 200_000
    confidence = np.full(n, 0.7, dtype=np.float32)
    expected = 1 - float(np.float32(0.7))
    assert metrics.ece(confidence, np.ones(n)) == pytest.approx(expected, abs=1e-12)
    assert metrics.overconfidence(confidence, np.ones(n)) == pytest.approx(-expected, abs=1e-12)


def test_correct_may_be_bool_int_or_float():
    for dtype in (bool, int, np.uint8, float, np.float16):
        assert metrics.ece([0.2, 0.9], np.array([0, 1], dtype=dtype)) == pytest.approx(0.15)
    assert metrics.ece((0.2, 0.9), [False, True]) == pytest.approx(0.15)


def test_inputs_are_left_as_they_are(golden):
    before = [array.copy() for array in golden]
    for metric in metrics.CATALOG.values():
        if metric.name != "smece":
            metric.value(*golden.arrays(metric.kind))
    assert all(np.array_equal(a, b) for a, b in zip(before, golden, strict=True))


# Ragged docs


def test_every_form_of_choices_is_taken(make_sample):
    sample = make_sample(50)
    rows = list(sample.probs)
    objects = np.empty(50, dtype=object)
    objects[:] = rows
    forms = [sample.probs.tolist(), rows, tuple(map(tuple, rows)), objects, sample.probs.astype(object)]
    for name in CHOICES:
        expected = metrics.CATALOG[name].value(sample.probs, sample.labels)
        for form in forms:
            assert metrics.CATALOG[name].value(form, sample.labels) == expected


def test_absent_choices_are_like_impossible_ones_where_docs_are_summed(make_sample):
    sample = make_sample(200, k=5, ragged=True)
    padded = np.array([np.pad(row, (0, 5 - len(row))) for row in sample.probs])
    for name in ("brier_score", "nll", "full_ece_choices"):
        value = metrics.CATALOG[name].value
        assert value(sample.probs, sample.labels) == pytest.approx(value(padded, sample.labels), abs=1e-12)
    for name in ("ace", "sce"):  # a class is judged on the docs that have it
        value = metrics.CATALOG[name].value
        assert abs(value(sample.probs, sample.labels) - value(padded, sample.labels)) > 0.001


def test_a_class_is_judged_on_the_docs_that_have_it():
    probs, labels = [[0.5, 0.5], [0.5, 0.5], [0.2, 0.2, 0.6]], [0, 1, 0]
    assert metrics.sce(probs, labels, n_bins=1) == pytest.approx((0.8 / 3 + 0.2 / 3 + 0.6) / 3)
    assert metrics.ace(probs, labels, n_bins=1) == pytest.approx((0.8 / 3 + 0.2 / 3 + 0.6) / 3)


def test_ace_leaves_empty_ranges_out():
    assert metrics.ace([[0.8, 0.2], [0.6, 0.4]], [0, 1], n_bins=10) == pytest.approx((0.2 + 0.6) / 2)


def test_ace_says_when_the_gold_is_always_at_the_same_position():
    with pytest.warns(UserWarning, match="the gold choice of every doc is at position 1"):
        value = metrics.ace([[0.8, 0.2], [0.6, 0.4]], [1, 1], n_bins=1)
    assert value == pytest.approx(0.7)
    assert metrics.ace([[0.8, 0.2]], [1]) == pytest.approx(0.8)  # one doc: nothing to say


# Undefined, never invented


@pytest.mark.parametrize(
    ("name", "confidence", "correct", "reason"),
    [
        ("auroc", [0.2, 0.9], [1, 1], "auroc is undefined: every doc is correct"),
        ("auroc", [0.2, 0.9], [0, 0], "auroc is undefined: every doc is wrong"),
        ("auroc", [0.2], [0], "auroc is undefined: every doc is wrong"),
        ("auprc", [0.2, 0.9], [0, 0], "auprc is undefined: no doc is correct"),
        ("skill_score", [0.2, 0.9], [1, 1], "skill_score is undefined: accuracy is 0 or 1"),
        ("skill_score", [0.2, 0.9], [0, 0], "skill_score is undefined: accuracy is 0 or 1"),
        (
            "confident_error_rate",
            [0.2, np.nextafter(0.9, 0)],
            [1, 1],
            "confident_error_rate is undefined: no doc has confidence >= 0.9",
        ),
        ("ece_debiased", [0.25, 0.9], [1, 1], "ece_debiased is undefined: no bin holds two docs"),
        (
            "ce_l2_debiased",
            np.linspace(0, 1, 19),
            [1] * 19,
            "ce_l2_debiased is undefined: 19 docs are fewer than two for each of 10 bins",
        ),
    ],
)
def test_undefined_is_nan_with_the_reason(name, confidence, correct, reason):
    with pytest.warns(UndefinedMetricWarning, match=re.escape(reason)):
        value = metrics.CATALOG[name].value(confidence, correct)
    assert type(value) is float
    assert np.isnan(value)


def test_defined_with_one_class():
    assert metrics.auprc([0.2, 0.9], [1, 1]) == 1
    assert metrics.aurc([0.2, 0.9], [0, 0]) == 1
    assert metrics.aurc([0.2, 0.9], [1, 1]) == 0
    assert metrics.augrc([0.2, 0.9], [0, 0]) == 0.5
    assert metrics.augrc([0.2, 0.9], [1, 1]) == 0
    assert metrics.corp_decomposition([0.2, 0.2], [1, 1]) == pytest.approx((0.64, 0, 0))
    assert metrics.ece([0.25], [1]) == 0.75


def test_debiased_errors_are_at_least_zero():
    confidence = np.full(100, 0.5)
    correct = np.arange(100) % 2
    assert metrics.ece(confidence, correct) == 0
    assert metrics.ece_debiased(confidence, correct) == 0
    assert metrics.ce_l2_debiased(confidence, correct) == 0


# What is refused, and with which words

BAD_TOP_LABEL = [
    ([], [], "confidence is empty"),
    ([0.5], [], "correct is empty"),
    ([0.5, 0.5], [1], "confidence has 2 rows, but correct has 1"),
    ([[0.5], [0.5]], [1, 0], "confidence has shape (2, 1); it must be one-dimensional"),
    ([0.5, 0.5], [[1], [0]], "correct has shape (2, 1); it must be one-dimensional"),
    (0.5, 1, "confidence has shape (); it must be one-dimensional"),
    ([0.1, 0.2, 0.3, 1.7], [1, 0, 1, 0], "confidence[3] is 1.7, outside [0, 1]"),
    ([62.0, 71.0], [1, 0], "confidence[0] is 62.0, outside [0, 1]"),
    ([0.5, -1e-9], [1, 0], "confidence[1] is -1e-09, outside [0, 1]"),
    ([0.5, np.nextafter(1, 2)], [1, 0], "confidence[1] is 1.0000000000000002, outside [0, 1]"),
    ([np.nan, 0.5], [1, 0], "confidence[0] is nan"),
    ([0.5, np.inf], [1, 0], "confidence[1] is inf, outside [0, 1]"),
    ([0.5, None], [1, 0], "confidence must be numbers, not object"),
    (["0.5", "0.6"], [1, 0], "confidence must be numbers, not <U3"),
    ([True, False], [1, 0], "confidence must be numbers, not bool"),
    ([0.5, 0.5], [1, 2], "correct[1] is 2.0, not 0 or 1"),
    ([0.5, 0.5], [0.5, 1], "correct[0] is 0.5, not 0 or 1"),
    ([0.5, 0.5], [1, np.nan], "correct[1] is nan, not 0 or 1"),
    ([0.5, 0.5], ["1", "0"], "correct must be numbers, not <U1"),
]


@pytest.mark.parametrize(("confidence", "correct", "message"), BAD_TOP_LABEL)
def test_bad_top_label(confidence, correct, message):
    by_rank = ("auroc",) if message.startswith("confidence[") else ()  # which takes any finite number
    functions = [f for name in TOP_LABEL if name not in by_rank for f in value_and_stderr(name)]
    functions += [metrics.corp_decomposition, metrics.corp_decomposition_stderr]
    functions += [metrics.ace_one_class, metrics.ace_one_class_stderr]
    for function in functions:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            function(confidence, correct)


GOOD = [[0.5, 0.5], [0.2, 0.3, 0.5]]
BAD_CHOICES = [
    ([], [], "probs is empty"),
    (np.zeros((0, 4)), [], "probs is empty"),
    (np.zeros((2, 0)), [0, 0], "probs[0] has no choices"),
    (GOOD, [], "labels is empty"),
    (GOOD, [0], "probs has 2 rows, but labels has 1"),
    (GOOD, [[0], [1]], "labels has shape (2, 1); it must be one-dimensional"),
    (GOOD, [0.0, 1.0], "labels must be integers, not float64"),
    (GOOD, [True, False], "labels must be integers, not bool"),
    (GOOD, [0, 3], "labels[1] is 3, but row 1 has 3 choices"),
    (GOOD, [2, 2], "labels[0] is 2, but row 0 has 2 choices"),
    (GOOD, [-100, 2], "labels[0] is -100, but row 0 has 2 choices"),
    ([[0.5, 0.5], []], [0, 0], "probs[1] has no choices"),
    ([0.5, 0.5], [0, 0], "probs[0] has shape (); it must be one vector of choices"),
    (np.array([0.5, 0.5]), [0, 0], "probs[0] has shape (); it must be one vector of choices"),
    (np.full((2, 2, 2), 0.5), [0, 0], "probs[0] has shape (2, 2); it must be one vector of choices"),
    (np.full((2, 1), 0.5), [0, 0], "probs[0] sums to 0.5, not 1"),
    (0.5, [0], "probs must be an [N, K] array or a list of N vectors"),
    ("half", [0], "probs must be an [N, K] array or a list of N vectors"),
    ([[0.5, 0.5], [0.5, 0.41]], [0, 0], "probs[1] sums to 0.91, not 1"),
    ([[0.5, 0.5], [0.2, 0.3, 0.50011]], [0, 0], "probs[1] sums to 1.00011, not 1"),
    ([[0.5, 0.5], [1.2, -0.2]], [0, 0], "probs[1][0] is 1.2, outside [0, 1]"),
    ([[0.5, 0.5], [0.5, 0.2, np.nan]], [0, 0], "probs[1][2] is nan"),
    (np.array([[0.5, 0.5], [np.nan, 0.5]]), [0, 0], "probs[1][0] is nan"),
    ([[-0.7, -1.2], [-2.0, -0.1]], [0, 0], "probs[0][0] is -0.7, outside [0, 1]"),
    ([["a", "b"]], [0], "probs must be numbers, not <U1"),
    ([[True, False]], [0], "probs must be numbers, not bool"),
]


@pytest.mark.parametrize(("probs", "labels", "message"), BAD_CHOICES)
def test_bad_choices(probs, labels, message):
    for name in CHOICES:
        for function in value_and_stderr(name):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                function(probs, labels)


def test_bad_objects():
    with pytest.raises(ValueError, match=re.escape("probs[1] is not a vector of numbers")):
        metrics.nll([[0.5, 0.5], np.array([0.5, "half"], dtype=object)], [0, 0])
    with pytest.raises(ValueError, match=re.escape("probs[1][1] is nan")):
        metrics.nll([[0.5, 0.5], [0.5, None]], [0, 0])


def test_a_sum_may_be_off_by_rounding():
    assert metrics.brier_score([[0.50009, 0.5]], [0]) == pytest.approx(0.5, abs=1e-3)
    assert metrics.ece([np.float32(1 / 3)], [1]) == pytest.approx(2 / 3, abs=1e-7)


@pytest.mark.parametrize("n_bins", [0, -1, 10.0, "10", None, True, np.float64(10)])
def test_n_bins_is_a_positive_integer(golden, n_bins):
    message = f"^{re.escape(f'n_bins is {n_bins!r}; it must be a positive integer')}$"
    for metric in metrics.CATALOG.values():
        if metric.takes_n_bins:
            for function in (metric.value, metric.stderr):
                with pytest.raises(ValueError, match=message):
                    function(*golden.arrays(metric.kind), n_bins=n_bins)
    for function in (metrics.ace_one_class, metrics.ace_one_class_stderr):
        with pytest.raises(ValueError, match=message):
            function(*golden[2:], n_bins=n_bins)
    for function in (metrics.full_ece, metrics.full_ece_stderr, metrics.position_gap_sums):
        with pytest.raises(ValueError, match=message):
            function(*golden[:2], n_bins=n_bins)
    for function in (metrics.bin_edges, lambda n: metrics.bin_index([0.5], n)):
        with pytest.raises(ValueError, match=message):
            function(n_bins)
    with pytest.raises(ValueError, match=message):
        metrics.gap_sums([0.5], 0.5, n_bins=n_bins)


def test_n_bins_may_be_a_numpy_integer(golden):
    assert metrics.ece(*golden[2:], n_bins=np.int64(15)) == metrics.ece(*golden[2:], n_bins=15)


@pytest.mark.parametrize("threshold", [1.5, -0.1, np.nan, "0.9"])
def test_threshold_is_a_probability(threshold):
    for function in (metrics.confident_error_rate, metrics.confident_error_rate_stderr):
        with pytest.raises(ValueError, match=r"^threshold is "):
            function([0.5, 0.95], [1, 0], threshold=threshold)


def test_smece_without_relplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "relplot", None)
    with pytest.raises(ImportError, match="pip install relplot"):
        metrics.smece([0.5], [1])


# Properties

docs = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40)
rows = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any), min_size=1, max_size=25)
RANGES = {"skill_score": (-np.inf, 1), "overconfidence": (-1, 1), "augrc": (0, 0.5), "nll": (0, np.inf)}
RANGES |= dict.fromkeys(["brier_score", "full_ece_choices"], (0, 2))


def quietly(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined, or one gold position
        return function(*arguments)


@settings(max_examples=60, deadline=None)
@given(docs=docs, seed=st.integers(0, 1000))
def test_top_label_order_and_range(docs, seed):
    """The order of docs never matters, ties included, and values stay in their range."""
    confidence, correct = np.array([d[0] / 12 for d in docs]), np.array([d[1] for d in docs])
    order = np.random.default_rng(seed).permutation(len(docs))
    for name in set(TOP_LABEL) - {"smece"}:
        metric = metrics.CATALOG[name]
        value = quietly(metric.value, confidence, correct)
        shuffled = quietly(metric.value, confidence[order], correct[order])
        assert shuffled == pytest.approx(value, abs=1e-9, nan_ok=True), name
        low, high = RANGES.get(name, (0, 1))
        assert np.isnan(value) or low - 1e-12 <= value <= high + 1e-12, name
    assert metrics.mce(confidence, correct) >= metrics.rms_ce(confidence, correct) - 1e-9
    assert metrics.rms_ce(confidence, correct) >= metrics.ece(confidence, correct) - 1e-9
    assert metrics.ece(confidence, correct) >= abs(metrics.overconfidence(confidence, correct)) - 1e-9
    parts = metrics.corp_decomposition(confidence, correct)
    brier = parts.miscalibration - parts.discrimination + parts.uncertainty
    assert brier == pytest.approx(metrics.brier_top_label(confidence, correct), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=rows, seed=st.integers(0, 1000))
def test_choices_order_and_range(rows, seed):
    rng = np.random.default_rng(seed)
    probs = [np.array(row) / sum(row) for row in rows]
    labels = np.array([rng.integers(len(row)) for row in rows])
    order = rng.permutation(len(rows))
    for name in CHOICES:
        metric = metrics.CATALOG[name]
        value = quietly(metric.value, probs, labels)
        shuffled = quietly(metric.value, [probs[i] for i in order], labels[order])
        assert shuffled == pytest.approx(value, abs=1e-9), name
        low, high = RANGES.get(name, (0, 1))
        assert low <= value <= high + 1e-12, name


@settings(max_examples=60, deadline=None)
@given(docs=docs)
def test_turning_confidence_round_turns_auroc_round(docs):
    confidence, correct = np.array([d[0] / 12 for d in docs]), np.array([d[1] for d in docs])
    value = quietly(metrics.auroc, confidence, correct)
    turned = quietly(metrics.auroc, 1 - confidence, correct)
    assert turned == pytest.approx(1 - value, abs=1e-12, nan_ok=True)


# Known truth


@pytest.mark.parametrize(("n", "null", "samples"), [(100, 0.096, 400), (1_000, 0.031, 200), (14_042, 0.008, 40)])
def test_ece_of_a_calibrated_model_is_its_null(n, null, samples):
    """Plug-in ECE is biased upward; the debiased one is not by nearly as much."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.25, 1, (samples, n))
    correct = rng.uniform(0, 1, (samples, n)) < confidence
    plug_in = [metrics.ece(c, h) for c, h in zip(confidence, correct, strict=True)]
    assert np.mean(plug_in) == pytest.approx(null, abs=0.0015)
    debiased = [metrics.ece_debiased(c, h) for c, h in zip(confidence[:40], correct[:40], strict=True)]
    assert np.mean(debiased) < 0.7 * null


def test_errors_find_a_known_miscalibration():
    """Confidence 0.8 where 0.6 is right, in 300,000 docs: the gap is 0.2 in every bin that holds a doc."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 0.7, 300_000)
    correct = rng.uniform(0, 1, 300_000) < truth
    confidence = truth + 0.2
    for name in ("ece", "rms_ce", "ace_top_label", "ece_debiased", "ce_l2_debiased", "overconfidence"):
        assert metrics.CATALOG[name].value(confidence, correct) == pytest.approx(0.2, abs=0.005)
    assert metrics.ece_stderr(confidence, correct) == pytest.approx(
        np.sqrt(np.mean(truth * (1 - truth)) / 300_000), rel=0.1
    )


def test_import_is_cheap():
    code = (
        "import sys, lm_eval_calibration.metrics\n"
        "heavy = {'torch', 'lm_eval', 'matplotlib', 'relplot', 'sklearn', 'transformers', 'datasets'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_auroc_says_which_doc_has_no_finite_number(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^confidence\[2\] is {value}, which is not a finite number$"):
        metrics.auroc([0.1, 3.0, value, -2.0], [0, 1, 1, 0])
