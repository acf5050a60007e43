"""Intervals: what each doc does to a gap, the inverted tests, the edges, and coverage in small simulations."""

import warnings

import numpy as np
import pytest
from scipy import special, stats
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.metrics.uncertainty import gap_vectors
from lm_eval_calibration.metrics.validation import check_choices, check_top_label

EXACT = {"abs": 1e-12, "rel": 0}
SAMPLES = [
    {"n": 400},
    {"n": 300, "seed": 1, "ties": True},
    {"n": 250, "seed": 2, "ragged": True, "k": 6},
    {"n": 37, "seed": 3, "ragged": True, "ties": True, "k": 5},
]
# Gap vector of each binned error, and how its gaps make the error.
VECTORS = {
    "ece": (gap_vectors.equal_width_gaps, "sum"),
    "ace_top_label": (gap_vectors.top_label_range_gaps, "sum"),
    "ace_one_class": (gap_vectors.one_class_range_gaps, "sum"),
    "ace": (gap_vectors.class_range_gaps, "sum"),
    "sce": (gap_vectors.class_bin_gaps, "sum"),
    "full_ece_choices": (gap_vectors.choices_gaps, "sum"),
}


@pytest.fixture(params=SAMPLES, ids=str)
def sample(request, make_sample):
    return make_sample(**request.param)


def arrays(sample, name):
    return sample.arrays(CATALOG[name].kind if name in CATALOG else "top_label")


def vector_of(sample, name, n_bins=10):
    function, _ = VECTORS[name]
    data = arrays(sample, name)
    if len(data[0]) and name in ("ece", "ace_top_label", "ace_one_class"):
        return function(*check_top_label(*data), n_bins=n_bins)
    return function(check_choices(*data), n_bins=n_bins)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("n_bins", [3, 10, 50])
def test_the_gaps_add_up_to_the_metric(sample, name, n_bins):
    value = getattr(metrics, name)(*arrays(sample, name), n_bins=n_bins)
    assert np.abs(vector_of(sample, name, n_bins).gaps).sum() == pytest.approx(value, **EXACT)


def test_root_gaps_add_up_to_rms_ce_and_full_ece_gaps_to_full_ece(make_sample):
    sample = make_sample(300)
    conf, hit = check_top_label(sample.confidence, sample.correct)
    root = gap_vectors.root_gaps(conf, hit, metrics.bin_index(conf, 10), 10)
    assert np.sqrt(np.sum(root.gaps**2)) == pytest.approx(metrics.rms_ce(conf, hit), **EXACT)
    gaps, n = arrays(sample, "full_ece")
    doc_gaps, doc_n = gaps.reshape(100, 3, -1).sum(axis=1), n.reshape(100, 3).sum(axis=1)
    vector = gap_vectors.ratio_gaps(doc_gaps, doc_n)
    value = metrics.full_ece_from_gap_sums(doc_gaps, doc_n)
    assert np.abs(vector.gaps).sum() == pytest.approx(value, **EXACT)


@pytest.mark.parametrize("name", [*VECTORS, "rms_ce"])
@pytest.mark.slow
def test_the_influence_gives_the_covariance_that_the_bootstrap_gives(make_sample, name):
    sample = make_sample(3000, seed=5, ragged=name in ("sce", "full_ece_choices", "ace"))

    def vector(rows):
        conf, hit = check_top_label(sample.confidence[rows], sample.correct[rows])
        if name == "rms_ce":
            return gap_vectors.root_gaps(conf, hit, metrics.bin_index(conf, 5), 5)
        if name in ("ece", "ace_top_label", "ace_one_class"):
            return VECTORS[name][0](conf, hit, n_bins=5)
        return VECTORS[name][0](check_choices([sample.probs[i] for i in rows], sample.labels[rows]), n_bins=5)

    rng = np.random.default_rng(0)
    here = vector(np.arange(3000))
    assert np.abs(here.influence.mean(axis=0)).max() < 1e-12
    gaps = np.array([vector(rng.integers(0, 3000, 3000)).gaps for _ in range(150)])
    total = here.influence.sum(axis=1).std(ddof=1) / np.sqrt(3000)
    assert gaps.sum(axis=1).std(ddof=1) == pytest.approx(total, rel=0.25)
    stderr = np.sqrt((here.influence**2).sum(axis=0)) / 3000
    live = stderr > 0.2 * stderr.max()
    ratio = gaps.std(axis=0, ddof=1)[live] / stderr[live]
    assert np.all((ratio > 0.75) & (ratio < 1.3))


def test_range_membership_is_fractional_in_a_tie_and_one_hot_elsewhere():
    below = gap_vectors.range_membership(np.array([0.9, 0.1, 0.5, 0.5, 0.5, 0.2]), 2)
    assert below[:, 0].tolist() == [0] * 6
    assert below[:, 2].tolist() == [1] * 6
    assert below[:, 1] == pytest.approx([0, 1, 1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("name", ["aurc", "augrc", "auprc", "skill_score", "auroc"])
def test_influence_functions_are_the_derivative_in_the_weight_of_a_doc(make_sample, name):
    sample = make_sample(200, seed=9, ties=True)
    conf, hit = check_top_label(sample.confidence, sample.correct)
    influence = CATALOG[name].estimate(conf, hit).influence
    assert abs(influence.mean()) < 1e-12
    copies, n = 200, len(conf)
    conf_many, hit_many = np.repeat(conf, copies), np.repeat(hit, copies)
    value = getattr(metrics, name)
    base = value(conf_many, hit_many)
    for i in (0, 17, 101, 199):
        extra = 100  # a small weight: 100 more copies among 40,000
        more = value(np.append(conf_many, np.full(extra, conf[i])), np.append(hit_many, np.full(extra, hit[i])))
        weight = extra / (n * copies + extra)
        assert (more - base) / weight == pytest.approx(influence[i], abs=0.02 + 0.03 * abs(influence[i]))


@pytest.mark.parametrize("name", CATALOG)
def test_every_metric_has_an_interval_around_its_estimate(make_sample, name):
    sample, metric = make_sample(500, seed=4), CATALOG[name]
    low, high = metric.interval(*arrays(sample, name))
    assert low < high
    stderr = metric.stderr(*arrays(sample, name), **({} if name in ("brier_score", "nll") else _few_draws(metric)))
    assert (high - low) / (2 * 1.96 * stderr) > 0.7
    if name != "mce":  # bins with few docs say little about a maximum
        assert (high - low) / (2 * 1.96 * stderr) < 2
    assert metric.interval(*arrays(sample, name), seed=0) == (low, high)
    narrow = metric.interval(*arrays(sample, name), level=0.5)
    assert low <= narrow[0] < narrow[1] <= high
    assert all(isinstance(end, float) for end in (low, high))


def _few_draws(metric):
    from inspect import signature

    return {"draws": 40} if "draws" in signature(metric.stderr).parameters else {}


@pytest.mark.parametrize("name", ["aurc", "augrc", "auprc", "skill_score"])
def test_few_docs_of_a_class_are_too_few_to_tell(name):
    confidence = np.linspace(0.3, 0.99, 200)
    correct = np.ones(200)
    correct[:45:5] = 0
    assert (correct == 0).sum() == 9
    with pytest.warns(UndefinedMetricWarning, match="needs 10 right and 10 wrong docs, and there are 191 and 9"):
        assert np.isnan(CATALOG[name].interval(confidence, correct)).all()
    assert np.isfinite(CATALOG[name].value(confidence, correct))
    correct[45] = 0
    low, high = CATALOG[name].interval(confidence, correct)
    assert low < CATALOG[name].value(confidence, correct) < high


def test_the_interval_of_skill_is_that_of_the_log_of_what_is_lost():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=300)
    correct = (rng.uniform(size=300) < confidence).astype(int)
    squares, hits = (confidence - correct) ** 2, correct
    a, brier = hits.mean(), squares.mean()
    # log(1 - skill) = log(brier) - log(a (1 - a)): its derivative in each doc's weight
    influence = (squares - brier) / brier - (1 - 2 * a) * (hits - a) / (a * (1 - a))
    quantile = stats.t(min(hits.sum(), 300 - hits.sum()) - 1).ppf(0.975)
    half = quantile * np.std(influence, ddof=1) / np.sqrt(300)
    expected = 1 - np.exp(np.log(brier / (a * (1 - a))) + np.array([half, -half]))
    np.testing.assert_allclose(metrics.skill_score_interval(confidence, correct), expected, atol=1e-12)
    even = np.resize([0, 1], 300)
    for alike in (even, np.full(300, 0.5), 1 - even):
        with pytest.warns(UndefinedMetricWarning, match="no interval"):
            assert np.isnan(metrics.skill_score_interval(alike.astype(float), even)).all()


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "confident_error_rate"])
def test_one_doc_has_no_interval(make_sample, name):
    sample, metric = make_sample(1), CATALOG[name]
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metric.interval(*arrays(sample, name))).all()


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, float("nan"), True])
def test_a_level_is_between_0_and_1(make_sample, level):
    sample = make_sample(20)
    with pytest.raises(ValueError, match="level"):
        metrics.ece_interval(sample.confidence, sample.correct, level=level)
    with pytest.raises(ValueError, match="level"):
        metrics.brier_score_interval(sample.probs, sample.labels, level=level)


@pytest.mark.parametrize("name", [n for n in CATALOG if CATALOG[n].kind == "top_label"])
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=r"confidence\[1\] is 1.5"):
        CATALOG[name].interval([0.5, 1.5], [1, 0])


def test_mean_intervals_of_many_docs_are_students(make_sample):
    sample = make_sample(5000, seed=7)
    expected = stats.t.interval(
        0.9,
        4999,
        metrics.overconfidence(sample.confidence, sample.correct),
        metrics.overconfidence_stderr(sample.confidence, sample.correct),
    )
    found = metrics.overconfidence_interval(sample.confidence, sample.correct, level=0.9)
    assert found == pytest.approx(expected, abs=1e-4)


def test_docs_that_are_all_correct_are_not_certainty():
    """Twenty right answers leave an error rate of 14% open: 0.86 ^ 20 is 5%. None is right more often than always."""
    low, high = metrics.overconfidence_interval(np.full(20, 0.9), np.ones(20))
    assert low == pytest.approx(0.9 - 1, abs=1e-12)
    assert high == pytest.approx(0.9 - 0.05 ** (1 / 20), abs=1e-9)
    low, high = metrics.ece_interval(np.full(20, 0.9), np.ones(20))
    assert high - low > 0.05
    low, high = metrics.ece_interval(np.ones(20), np.ones(20))
    assert low == 0
    assert 0.01 < high < 0.2
    for interval in (metrics.ece_interval, metrics.rms_ce_interval, metrics.overconfidence_interval):
        low, high = interval(np.ones(30), np.zeros(30))
        assert 0.5 < low < 0.99, interval
        assert high == pytest.approx(1), interval


def test_auroc_interval_of_separated_docs_is_newcombes():
    low, high = metrics.auroc_interval([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    assert 0.3 < low < 0.7
    assert high == 1
    mirrored = metrics.auroc_interval([0.7, 0.8, 0.9, 0.1, 0.2, 0.3], [0, 0, 0, 1, 1, 1])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)
    low, high = metrics.auroc_interval([0.1, 0.6, 0.3, 0.7], [0, 0, 0, 1])
    assert 0 < low < 1 == high
    low, high = metrics.auroc_interval([0.1, 0.9, 0.3, 0.7], [0, 0, 0, 1])
    assert 0 < low < 2 / 3 < high < 1
    low, high = metrics.auroc_interval(np.full(20, 0.3), np.arange(20) % 2)
    assert low == pytest.approx(1 - high)
    assert 0.2 < low < 0.35
    with pytest.warns(UndefinedMetricWarning, match="every doc is correct"):
        assert np.isnan(metrics.auroc_interval([0.2, 0.4], [1, 1])).all()


def test_auroc_interval_is_delongs_with_the_t_of_the_rarer_class_and_newcombes_below_five():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(size=60), np.repeat([1, 0], [54, 6])
    right, wrong = confidence[correct == 1], confidence[correct == 0]
    wins = (right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)
    area = wins.mean()
    variance = np.var(wins.mean(axis=1), ddof=1) / 54 + np.var(wins.mean(axis=0), ddof=1) / 6
    half = stats.t(5).ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    expected = special.expit(special.logit(area) + np.array([-half, half]))
    np.testing.assert_allclose(metrics.auroc_interval(confidence, correct), expected, atol=1e-12)
    few = correct[:58]
    area = metrics.auroc(confidence[:58], few)
    for end in metrics.auroc_interval(confidence[:58], few):
        spread = 1 + 28 * (1 - end) / (2 - end) + 28 * end / (1 + end)
        variance = end * (1 - end) * spread / (54 * 4)
        assert abs(area - end) / np.sqrt(variance) == pytest.approx(stats.norm.ppf(0.975), abs=1e-6)


def test_confident_error_rate_interval_is_mid_p():
    """By the definition: P(more) + P(as many) / 2 is 2.5% at one end and 97.5% at the other."""
    confidence, correct = np.array([0.95] * 30 + [0.5] * 10), np.array([1] * 27 + [0] * 13)
    ends = metrics.confident_error_rate_interval(confidence, correct)
    tails = [stats.binom.sf(3, 30, end) + stats.binom.pmf(3, 30, end) / 2 for end in ends]
    assert tails == pytest.approx([0.025, 0.975], abs=1e-9)
    with pytest.warns(UndefinedMetricWarning, match="no doc has confidence"):
        assert np.isnan(metrics.confident_error_rate_interval([0.2, 0.4], [1, 1])).all()


def test_mce_interval_is_the_joint_clopper_pearson_of_the_bins():
    confidence, correct = np.array([0.15] * 10 + [0.85] * 40), np.array([1] * 4 + [0] * 6 + [1] * 30 + [0] * 10)
    few = stats.binomtest(4, 10).proportion_ci(0.975, method="exact")
    many = stats.binomtest(30, 40).proportion_ci(0.975, method="exact")
    low = max(few.low - 0.15, 0.85 - many.high, 0)
    high = max(few.high - 0.15, 0.85 - many.low)
    assert metrics.mce_interval(confidence, correct) == pytest.approx((low, high), abs=1e-9)


def test_an_infinite_nll_has_no_interval():
    with pytest.warns(UndefinedMetricWarning, match="probability 0"):
        assert np.isnan(metrics.nll_interval([[1, 0], [0.5, 0.5]], [1, 0])).all()


def test_full_ece_intervals_agree_and_keep_docs_together(make_sample):
    sample = make_sample(600, k=6, seed=3)
    gaps = metrics.position_gap_sums(sample.probs, sample.labels)
    positions = np.ones(600, dtype=int)
    alone = metrics.full_ece_interval(sample.probs, sample.labels)
    assert alone == metrics.full_ece_from_gap_sums_interval(gaps, positions)
    # Each position four times over: four times as many positions, and not one doc more.
    again = metrics.full_ece_from_gap_sums_interval(4 * gaps, 4 * positions)
    apart = metrics.full_ece_from_gap_sums_interval(np.repeat(gaps, 4, axis=0), np.repeat(positions, 4))
    assert again == pytest.approx(alone, rel=0.02)
    assert apart[1] - apart[0] < 0.6 * (alone[1] - alone[0])


@pytest.mark.slow
def test_order_of_docs_does_not_matter(make_sample):
    sample = make_sample(200, seed=6, ties=True)
    orders = [np.random.default_rng(seed).permutation(200) for seed in range(10)]
    for name in ("ece", "ace", "auroc", "brier_score", "aurc", "ace_top_label", "rms_ce", "sce"):
        straight = arrays(sample, name)
        expected = CATALOG[name].interval(*straight)
        for order in orders:
            shuffled = [np.asarray(array)[order] for array in straight]
            assert CATALOG[name].interval(*shuffled) == pytest.approx(expected, abs=1e-9), name


def truth_of_ece(gap_at, n=400_000):
    confidence = (np.arange(n) + 0.5) / n * 0.75 + 0.25
    index = metrics.bin_index(confidence, 10)
    return np.abs(np.bincount(index, gap_at(confidence), 10)).sum() / n


@pytest.mark.parametrize("gap", [0.0, 0.06, 0.12])
@pytest.mark.slow
def test_ece_interval_holds_the_truth_in_a_small_simulation(gap):
    """Seeded; binomial noise of 200 draws at 95% is 1.5 points, so that 91% is far below."""
    rng, held = np.random.default_rng(11), 0
    truth = truth_of_ece(lambda c: np.full(len(c), gap) * (c > gap))
    for _ in range(200):
        confidence = rng.uniform(0.25, 1, 300)
        correct = rng.random(300) < confidence - gap
        low, high = metrics.ece_interval(confidence, correct)
        held += low <= truth <= high
    assert held >= 182


def test_the_percentile_bootstrap_does_not_hold_what_ours_does():
    """Why all this: at calibration the bootstrap's percentiles of the plug-in error never reach 0."""
    rng = np.random.default_rng(0)
    ours, theirs = 0, 0
    for _ in range(20):
        confidence = rng.uniform(0.25, 1, 200)
        correct = (rng.random(200) < confidence).astype(float)
        drawn = [metrics.ece(confidence[i], correct[i]) for i in rng.integers(0, 200, (100, 200))]
        theirs += np.quantile(drawn, 0.025) <= 0
        ours += metrics.ece_interval(confidence, correct)[0] == 0
    assert theirs == 0
    assert ours >= 17


def test_large_ragged_and_tied_docs_have_finite_intervals(make_sample):
    sample = make_sample(40, seed=8, ties=True, ragged=True, k=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("ace", "sce", "full_ece_choices", "brier_score"):
            assert np.isfinite(CATALOG[name].interval(sample.probs, sample.labels)).all()
