"""Comparison of two runs: t intervals for means, level and power, refusals, and Holm."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG, Run, compare, holm


def draw_run(rng, z, labels, *, sharpness=1.0, noise=0.0, tokenizer="t"):
    """A run on docs with true logits z: sharpness above 1 is overconfident."""
    probs = softmax(sharpness * (z + noise * rng.standard_normal(z.shape)), axis=1)
    gaps = metrics.position_gap_sums(probs, labels)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    return Run(confidence, correct, probs, labels, gaps, np.ones(len(labels), dtype=int), tokenizer)


def draw_docs(rng, n):
    z = rng.normal(0, 1.5, (n, 4))
    return z, (rng.random((n, 1)) > softmax(z, axis=1).cumsum(axis=1)).sum(axis=1).clip(0, 3)


@pytest.fixture
def runs():
    rng = np.random.default_rng(0)
    z, labels = draw_docs(rng, 600)
    return draw_run(rng, z, labels), draw_run(rng, z, labels, sharpness=2)


def test_every_metric_is_compared_and_the_values_are_the_printed_ones(runs):
    found = compare(*runs)
    assert list(found) == ["acc", *CATALOG]
    for name, one in found.items():
        if name == "full_ece":
            expected = [metrics.full_ece_from_gap_sums(run.gap_sums, run.n_positions) for run in runs]
        elif name == "acc" or CATALOG[name].kind == "top_label":
            expected = [getattr(metrics, name)(run.confidence, run.correct) for run in runs]
        else:
            expected = [CATALOG[name].value(run.probs, run.labels) for run in runs]
        assert [one.a, one.b] == expected
        assert one.low <= one.difference <= one.high
        assert 0 <= one.p_value <= 1
        assert (one.p_value < 0.05) == (one.low > 0 or one.high < 0)
    assert found["ece"].low > 0.05
    assert found["overconfidence"].p_value < 1e-6
    assert compare(*runs, names=["ece"]) == {"ece": found["ece"]}


def test_paired_means_have_the_paired_t_interval():
    rng = np.random.default_rng(1)
    z, labels = draw_docs(rng, 4000)
    a, b = draw_run(rng, z, labels), draw_run(rng, z, labels, noise=0.3)
    found = compare(a, b, names=["brier_score", "overconfidence", "nll"])
    losses = [np.sum((run.probs - np.eye(4)[labels]) ** 2, axis=1) for run in (a, b)]
    expected = stats.ttest_rel(losses[1], losses[0])
    interval = expected.confidence_interval(0.95)
    assert found["brier_score"][3:5] == pytest.approx((interval.low, interval.high), abs=2e-4)
    assert found["brier_score"].p_value == pytest.approx(expected.pvalue, abs=0.01)
    apart = compare(a, b, names=["brier_score"], paired=False)["brier_score"]
    welch = stats.ttest_ind(losses[1], losses[0], equal_var=False).confidence_interval(0.95)
    assert apart[3:5] == pytest.approx((welch.low, welch.high), abs=2e-4)
    assert apart.high - apart.low > 2 * (found["brier_score"].high - found["brier_score"].low)


def test_accuracies_of_the_same_docs_have_mcnemars_verdict():
    rng = np.random.default_rng(4)
    hit = (rng.random(400) < 0.7).astype(int)
    other = np.where(rng.random(400) < 0.1, 1 - hit, hit)  # a tenth of the answers changed
    found = compare(Run(np.full(400, 0.5), hit), Run(np.full(400, 0.5), other), names=["acc"])["acc"]
    assert (found.a, found.b) == (hit.mean(), other.mean())
    gained, lost = np.sum(hit < other), np.sum(hit > other)
    difference, spread = (gained - lost) / 400, np.sqrt(gained + lost - (gained - lost) ** 2 / 400) / 400
    assert (found.low, found.high) == pytest.approx((difference - 1.96 * spread, difference + 1.96 * spread), abs=0.004)
    mcnemar = stats.chi2.sf((gained - lost) ** 2 / (gained + lost), 1)
    assert found.p_value == pytest.approx(mcnemar, abs=0.02)


def test_answers_that_are_all_alike_may_differ_in_the_population_unless_they_cannot():
    """A rate of discordant docs below 3 / N leaves none among N in one of twenty samples."""
    confidence, correct = np.linspace(0.5, 0.99, 30), np.arange(30) % 3 != 0
    a, b = Run(confidence, correct), Run(confidence, correct)
    for name in ("acc", "overconfidence", "brier_top_label"):
        found = compare(a, b, names=[name])[name]
        assert found.low < 0 < found.high, name
        assert compare(a, b, names=[name], same_answers=True)[name][2:5] == (0, 0, 0)
    found = compare(a, b, names=["acc"])["acc"]
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 30), abs=1e-6)


def test_confidences_that_differ_by_rounding_are_told_apart_no_more_often_than_the_level():
    rng, told_apart, names = np.random.default_rng(3), 0, ("brier_top_label", "overconfidence", "ece")
    for _ in range(100):
        confidence = rng.uniform(0.3, 1 - 1e-6, 200)
        correct = rng.random(200) < confidence
        other = confidence + 1e-9 * rng.normal(size=200)
        found = compare(Run(confidence, correct), Run(other, correct), names=names, same_answers=True)
        told_apart += np.array([found[n].p_value <= 0.05 for n in names])
    assert max(told_apart) <= 100 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 100))


def test_better_and_worse_of_a_signed_metric_are_of_its_size():
    """Two runs at +0.15 and -0.15 are equally far from 0; one at +0.3 is farther than one at 0.02."""
    rng = np.random.default_rng(5)
    confidence = np.full(2000, 0.7)
    runs = {gap: Run(confidence, rng.random(2000) < 0.7 - gap) for gap in (0.3, 0.15, 0.02, -0.15)}

    def verdict(a, b):
        return compare(runs[a], runs[b], names=["overconfidence"], paired=False)["overconfidence"].verdict

    assert verdict(0.15, -0.15) == verdict(-0.15, 0.15) == ""
    assert verdict(0.3, 0.02) == verdict(0.3, 0.15) == verdict(-0.15, 0.02) == "better"
    assert verdict(0.02, 0.3) == verdict(0.15, 0.3) == verdict(0.02, -0.15) == "worse"


def test_a_run_does_not_differ_from_itself(runs):
    for name, one in compare(runs[0], runs[0]).items():
        assert one.difference == 0, name
        assert one.low <= 0 <= one.high
        assert one.p_value == 1


def test_swapping_the_runs_swaps_the_signs(runs):
    there, back = compare(*runs), compare(*reversed(runs))
    for name, one in there.items():
        assert back[name].difference == pytest.approx(-one.difference, abs=1e-12)
        assert (-back[name].high, -back[name].low) == pytest.approx((one.low, one.high), abs=1e-9)
        assert back[name].p_value == pytest.approx(one.p_value, abs=1e-9)


@pytest.mark.parametrize("name", ["ece", "ace", "full_ece", "auroc", "brier_score"])
@pytest.mark.slow
def test_level_and_power_of_the_paired_test(name):
    """150 pairs of equally good runs: at most 5% + 3 standard errors are told apart; a much worse run always."""
    rng, false, found = np.random.default_rng(2), 0, 0
    for _ in range(150):
        z, labels = draw_docs(rng, 400)
        runs = [draw_run(rng, z, labels, noise=0.5) for _ in range(2)]
        false += compare(*runs, names=[name])[name].p_value < 0.05
    for _ in range(20):
        z, labels = draw_docs(rng, 1000)
        a, b = draw_run(rng, z, labels), draw_run(rng, z, labels, sharpness=2, noise=2)
        found += compare(a, b, names=[name])[name].p_value < 0.05
    assert false <= 150 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 150))
    assert found == 20


def test_unpaired_runs_may_have_different_numbers_of_docs(runs):
    rng = np.random.default_rng(3)
    other = draw_run(rng, *draw_docs(rng, 350), sharpness=2)
    found = compare(runs[0], other, names=["ece", "auroc", "full_ece"], paired=False)
    assert found["ece"].p_value < 0.01
    with pytest.raises(ValueError, match="paired runs have the same docs, but a has 600 and b 350"):
        compare(runs[0], other, names=["ece"])


def test_full_ece_of_different_or_unnamed_tokenizers_is_refused(runs):
    a, b = runs
    for other, reason in (
        (b._replace(tokenizer="u"), "'t' and 'u'"),
        (b._replace(tokenizer=None), "name the tokenizer"),
    ):
        with pytest.raises(ValueError, match=reason):
            compare(a, other, names=["full_ece"])
        with pytest.warns(UndefinedMetricWarning, match=reason):
            found = compare(a, other)
        assert np.isnan(found["full_ece"][2:6]).all()
        assert found["full_ece"].verdict == ""
        assert found["full_ece"].a > 0
        assert np.isfinite(found["ece"][:6]).all()


def test_arrays_that_are_missing_are_not_compared_and_are_named_where_asked_for(runs):
    a, b = (Run(confidence=run.confidence, correct=run.correct) for run in runs)
    assert set(compare(a, b)) == {"acc"} | {name for name in CATALOG if CATALOG[name].kind == "top_label"}
    with pytest.raises(ValueError, match="ace needs the arrays probs and labels of both runs"):
        compare(a, b, names=["ace"])
    with pytest.raises(ValueError, match="'eec' is no metric"):
        compare(a, b, names=["eec"])
    with pytest.raises(ValueError, match="level"):
        compare(a, b, level=1)


def test_an_undefined_metric_has_no_difference():
    a, b = Run([0.5, 0.9, 0.7], [1, 1, 1]), Run([0.5, 0.9, 0.7], [1, 0, 1])
    with pytest.warns(UndefinedMetricWarning, match="every doc is correct"):
        one = compare(a, b, names=["auroc"])["auroc"]
    assert one.b == 0
    assert np.isnan([one.a, *one[2:6]]).all()
    assert one.verdict == ""


def test_holm_is_the_step_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-12)
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    adjusted = holm([0.02, float("nan"), 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(adjusted[1])
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match=r"p_values\[1\] is 1.2"):
        holm([0.1, 1.2])
