"""The coverage simulation, small: seeded, and wide enough off that chance alone doesn't fail it."""

import numpy as np
import pytest
from simulations import coverage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=coverage.COVERED)
def cells(request):
    truth = coverage.truths(request.param, n=400_000)
    return request.param, truth, coverage.simulate(request.param, 200, truth, draws=60, seed=3)


def test_intervals_hold_the_truth(cells):
    """Of 60 draws 53 are 3 standard errors below 95%."""
    _, _, found = cells
    for name in coverage.METRICS:
        assert found[name].coverage >= 53 / 60, name


def test_the_interval_of_ece_is_no_wider_than_half_as_much_again(cells):
    _, _, found = cells
    assert found["ece"].mean_width <= 1.5 * found["ece_debiased"].mean_width


def test_the_truth_of_a_calibrated_population_is_0(cells):
    regime, truth, _ = cells
    if regime == "calibrated":
        assert [truth[name] for name in ("ece", "ace", "full_ece", "overconfidence")] == pytest.approx(
            [0] * 4, abs=1e-12
        )
    else:
        assert min(truth[name] for name in ("ece", "ace", "full_ece")) > 0.01


@pytest.mark.parametrize("regime", coverage.COVERED)
def test_the_metrics_of_many_docs_are_near_the_truth(regime):
    truth = coverage.truths(regime, n=400_000)
    sample = coverage.draw_sample(np.random.default_rng(0), 100_000, regime)
    for name in coverage.METRICS:
        value = getattr(coverage.metrics, name)(*sample.arrays(name))
        assert value == pytest.approx(truth[name], abs=0.012), name


def test_the_null_rejects_seldom_under_calibration_and_often_otherwise():
    seldom = coverage.rejections("calibrated", 150, draws=40, seed=0)
    often = coverage.rejections("overconfident by 0.05", 2000, draws=10, seed=0)
    assert max(seldom.values()) <= 0.15
    assert often["ece"] == often["overconfidence"] == 1


OTHERS = ("aurc", "augrc", "auprc", "skill_score", "brier_top_label", "rms_ce", "ace_top_label", "mce")


@pytest.mark.parametrize("regime", coverage.COVERED)
def test_the_intervals_of_the_other_top_label_metrics_hold_the_value_of_many_docs(regime):
    """Of 100 draws 88 are 3 standard errors below 95%; an error that is 0 shows 0.004 even on 400,000 docs."""
    rng = np.random.default_rng(8)
    many = coverage.draw_sample(rng, 400_000, regime)
    truth = {name: getattr(coverage.metrics, name)(many.confidence, many.correct) for name in OTHERS}
    held = dict.fromkeys(OTHERS, 0)
    for _ in range(100):
        sample = coverage.draw_sample(rng, 250, regime)
        for name in OTHERS:
            low, high = getattr(coverage.metrics, f"{name}_interval")(sample.confidence, sample.correct)
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 88, held


def test_full_ece_of_docs_whose_positions_depend_on_each_other_is_covered():
    """Each doc repeats its position one to four times: intervals over positions would be too narrow."""
    truth, held, naive = coverage.truths("overconfident", n=400_000)["full_ece"], 0, 0
    rng = np.random.default_rng(4)
    for _ in range(60):
        sample = coverage.draw_sample(rng, 200, "overconfident")
        gaps = coverage.metrics.position_gap_sums(sample.vocabulary, sample.targets)
        times = rng.integers(1, 9, 200)
        low, high = coverage.metrics.full_ece_from_gap_sums_interval(gaps * times[:, None], times)
        held += low <= truth <= high
        rows = np.repeat(np.arange(200), times)
        low, high = coverage.metrics.full_ece_interval(sample.vocabulary[rows], sample.targets[rows])
        naive += low <= truth <= high
    assert held >= 53
    assert naive < 50


def test_the_interval_of_a_paired_difference_holds_it_though_one_run_is_calibrated():
    """The calibrated run's plug-in error is all bias. Of 80 draws 70 are 3 standard errors below 95%."""
    names, rng = ("ece", "ace", "brier_score", "auroc"), np.random.default_rng(12)

    def sharpened(probs):
        return probs**1.5 / (probs**1.5).sum(axis=1, keepdims=True)

    def run(probs, labels):
        return coverage.metrics.Run(probs.max(axis=1), probs.argmax(axis=1) == labels, probs, labels)

    many = coverage.draw_docs(rng, 400_000, "calibrated")
    before, after = (coverage.true_values(many._replace(probs=p)) for p in (many.probs, sharpened(many.probs)))
    held, biased = dict.fromkeys(names, 0), 0
    for _ in range(80):
        sample = coverage.draw_sample(rng, 300, "calibrated")
        a, b = run(sample.probs, sample.labels), run(sharpened(sample.probs), sample.labels)
        found = coverage.metrics.compare(a, b, names=names)
        for name in names:
            held[name] += found[name].low - 1e-9 <= after[name] - before[name] <= found[name].high + 1e-9
        biased += found["ece"].b - found["ece"].a < after["ece"] - before["ece"]
    assert min(held.values()) >= 70, held
    assert biased > 60  # the printed values differ by less than the errors do
