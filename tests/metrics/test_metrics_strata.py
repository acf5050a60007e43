"""Metrics of strata: those of their docs alone, compared with the other docs."""

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import Run, by_stratum, compare, holm

NAMES = ["acc", "brier_score", "ece", "full_ece", "auroc"]


@pytest.fixture
def docs():
    """300 docs, the young third of them overconfident by far."""
    rng = np.random.default_rng(0)
    strata = np.array(["young", "middle", "old"] * 100)
    logits = rng.normal(0, 1.5, (300, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((300, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    sharp = logits * np.where(strata == "young", 4, 1)[:, None]
    probs = np.exp(sharp) / np.exp(sharp).sum(axis=1, keepdims=True)
    confidence, correct = probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(int)
    gaps, n_positions = metrics.position_gap_sums(probs, labels), np.ones(300, dtype=int)
    return Run(confidence, correct, probs, labels, gaps, n_positions), strata


def taken(run, which):
    return Run(*(array[which] for array in run[:6]), "t")


def test_values_and_intervals_are_those_of_the_stratum_and_differences_those_to_all_others(docs):
    run, strata = docs
    found = {(s.stratum, s.name): s for s in by_stratum(run, strata, names=NAMES)}
    assert [stratum for stratum, name in found if name == "acc"] == ["middle", "old", "young"]
    for stratum in ("middle", "old", "young"):
        inside, outside = taken(run, strata == stratum), taken(run, strata != stratum)
        expected = compare(outside, inside, names=NAMES, paired=False)
        for name in NAMES:
            s = found[stratum, name]
            assert (s.n_docs, s.value) == (100, expected[name].b)
            assert (s.difference, s.p_value) == (expected[name].difference, expected[name].p_value)
        assert (found[stratum, "ece"].low, found[stratum, "ece"].high) == metrics.ece_interval(*inside[:2])
        ends = metrics.full_ece_from_gap_sums_interval(inside.gap_sums, inside.n_positions)
        assert (found[stratum, "full_ece"].low, found[stratum, "full_ece"].high) == ends
    p_values = [found[stratum, "ece"].p_value for stratum in ("middle", "old", "young")]
    adjusted = [found[stratum, "ece"].p_adjusted for stratum in ("middle", "old", "young")]
    assert adjusted == holm(p_values).tolist()
    assert found["young", "ece"].n_tests == 3
    assert found["young", "ece"].p_adjusted < 0.01
    assert found["young", "ece"].difference > 0.1


def test_all_metrics_that_the_arrays_allow_and_ragged_choices(docs):
    run, strata = docs
    some = by_stratum(Run(run.confidence, run.correct), strata)
    assert {s.name for s in some} >= {"acc", "ece", "auroc"}
    assert not {s.name for s in some} & {"ace", "full_ece"}
    ragged = [row[: 2 + i % 3] / row[: 2 + i % 3].sum() for i, row in enumerate(run.probs)]
    labels = np.zeros(300, dtype=int)
    (nll, *_) = by_stratum(Run(probs=ragged, labels=labels), strata, names=["nll"])
    middle = [row for row, stratum in zip(ragged, strata, strict=True) if stratum == "middle"]
    assert nll.value == metrics.nll(middle, labels[:100])


def test_one_stratum_has_no_others_and_small_ones_no_auroc(docs):
    run, strata = docs
    (one,) = by_stratum(run, np.full(300, "all"), names=["ece"])
    assert (one.value, one.n_tests) == (metrics.ece(run.confidence, run.correct), 0)
    assert np.isnan([one.difference, one.p_value, one.p_adjusted]).all()
    strata = np.where(np.arange(300) == np.flatnonzero(run.correct)[0], "one", "rest")
    with pytest.warns(UndefinedMetricWarning, match="auroc is undefined"):
        found = by_stratum(run, strata, names=["auroc"])
    assert np.isnan([found[0].value, found[0].low, found[0].p_adjusted]).all()
    assert found[1].n_tests == 0


def test_bad_input_is_named(docs):
    run, strata = docs
    with pytest.raises(ValueError, match="strata has 299 rows, but confidence has 300"):
        by_stratum(run, strata[1:])
    with pytest.raises(ValueError, match="'eec' is no metric"):
        by_stratum(run, strata, names=["eec"])
