"""Standard errors: closed forms, the vectorised bootstrap against the literal one, and the large-N forms."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.uncertainty import ranges, resampling
from lm_eval_calibration.metrics.validation import check_choices

EXACT = {"abs": 1e-12, "rel": 0}
DRAWS = 60
SAMPLES = [
    {"n": 83},
    {"n": 120, "seed": 1, "ties": True},
    {"n": 90, "seed": 2, "ragged": True, "k": 6},
    {"n": 61, "seed": 3, "ragged": True, "ties": True, "k": 5},
    {"n": 7, "seed": 4},
]


@pytest.fixture(params=SAMPLES, ids=str)
def sample(request, make_sample):
    return make_sample(**request.param)


def literal_bootstrap(metric, n, *arrays, seed=0):
    """Standard deviation of the metric on resampled data, one draw after the other."""
    estimates = []
    for indices in np.random.default_rng(seed).integers(0, n, size=(DRAWS, n)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small resamples may have one gold position only
            estimates.append(metric(*([array[i] for i in indices] for array in arrays)))
    return np.std(estimates, ddof=1)


TOP_LABEL = ["ece", "mce", "rms_ce", "ace_top_label", "ace_one_class"]


@pytest.mark.parametrize("n_bins", [3, 10, 15])
@pytest.mark.parametrize("name", [*TOP_LABEL, "ace", "sce", "full_ece_choices"])
def test_bootstrap_is_the_literal_one(sample, name, n_bins):
    arrays = sample.arrays("top_label" if name in TOP_LABEL else "choices")
    value, stderr = getattr(metrics, name), getattr(metrics, f"{name}_stderr")
    expected = literal_bootstrap(lambda first, second: value(first, second, n_bins=n_bins), len(sample.labels), *arrays)
    assert expected > 0.001
    assert stderr(*arrays, n_bins=n_bins, draws=DRAWS) == pytest.approx(expected, **EXACT)


def test_full_ece_bootstrap_draws_whole_docs(make_sample):
    sample = make_sample(120, k=12)
    doc = np.sort(np.random.default_rng(0).integers(0, 40, 120))
    positions = [np.flatnonzero(doc == d) for d in np.unique(doc)]

    def value(docs):
        rows = np.concatenate(docs)
        return metrics.full_ece(sample.probs[rows], sample.labels[rows])

    expected = literal_bootstrap(value, len(positions), positions)
    gaps = metrics.position_gap_sums(sample.probs, sample.labels)
    doc_gaps = np.array([gaps[rows].sum(axis=0) for rows in positions])
    n_positions = np.array([len(rows) for rows in positions])
    stderr = metrics.full_ece_from_gap_sums_stderr(doc_gaps, n_positions, draws=DRAWS)
    assert stderr == pytest.approx(expected, **EXACT)
    per_position = literal_bootstrap(metrics.full_ece, 120, sample.probs, sample.labels)
    assert metrics.full_ece_stderr(sample.probs, sample.labels, draws=DRAWS) == pytest.approx(per_position, **EXACT)
    assert abs(per_position - expected) > 0.001


LOOPED = ["aurc", "augrc", "auprc", "skill_score", "confident_error_rate", "ece_debiased", "ce_l2_debiased"]


@pytest.mark.parametrize("name", LOOPED)
def test_looped_bootstrap(make_sample, name):
    arrays = make_sample(100, seed=11, ties=True)[2:]
    value, stderr = getattr(metrics, name), getattr(metrics, f"{name}_stderr")
    expected = literal_bootstrap(value, 100, *arrays, seed=5 if name != "ece_debiased" else 0)
    seed = 5 if name != "ece_debiased" else 0
    assert expected > 0.001
    assert stderr(*arrays, draws=DRAWS, seed=seed) == pytest.approx(expected, **EXACT)


@pytest.mark.slow
def test_smece_and_corp_bootstrap(make_sample):
    pytest.importorskip("relplot", reason="smece is computed by relplot")
    arrays = make_sample(100, seed=12)[2:]
    expected = literal_bootstrap(metrics.smece, 100, *arrays)
    assert metrics.smece_stderr(*arrays, draws=DRAWS) == pytest.approx(expected, **EXACT)
    parts = metrics.corp_decomposition_stderr(*arrays, draws=DRAWS)
    for name in parts._fields:
        one = literal_bootstrap(lambda c, h, n=name: getattr(metrics.corp_decomposition(c, h), n), 100, *arrays)
        assert getattr(parts, name) == pytest.approx(one, **EXACT)


def test_bootstrap_stderr_of_a_mean_approaches_the_closed_form(golden):
    stderr = metrics.bootstrap_stderr(np.mean, golden.confidence)
    assert stderr == pytest.approx(np.std(golden.confidence, ddof=1) / np.sqrt(2000), rel=0.06)


def test_closed_forms(golden):
    c, h, n = golden.confidence, golden.correct.astype(float), len(golden.labels)
    onehot = np.eye(4)[golden.labels]
    per_doc = {
        "brier_score": ((golden.probs - onehot) ** 2).sum(axis=1),
        "nll": -np.log((golden.probs * onehot).sum(axis=1)),
        "brier_top_label": (c - h) ** 2,
        "overconfidence": c - h,
    }
    for name, values in per_doc.items():
        metric = metrics.CATALOG[name]
        arrays = golden.arrays(metric.kind)
        assert metric.value(*arrays) == pytest.approx(values.mean(), **EXACT)
        assert metric.stderr(*arrays) == pytest.approx(np.std(values, ddof=1) / np.sqrt(n), **EXACT)


@pytest.mark.parametrize("ties", [False, True])
def test_delong_by_its_definition(make_sample, ties):
    confidence, correct = make_sample(150, seed=13, ties=ties)[2:]
    right, wrong = confidence[correct], confidence[~correct]
    wins = np.array([[1.0 if r > w else 0.5 if r == w else 0.0 for w in wrong] for r in right])
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    expected = np.sqrt(np.var(v10, ddof=1) / len(right) + np.var(v01, ddof=1) / len(wrong))
    assert metrics.auroc_stderr(confidence, correct) == pytest.approx(expected, **EXACT)


@pytest.mark.slow
def test_delong_agrees_with_the_bootstrap(golden):
    bootstrap = metrics.bootstrap_stderr(metrics.auroc, golden.confidence, golden.correct)
    assert metrics.auroc_stderr(golden.confidence, golden.correct) == pytest.approx(bootstrap, rel=0.07)


@pytest.mark.slow
def test_stderr_is_the_spread_over_samples(make_sample):
    """The errors say how much a new sample of docs would change the values."""
    samples = [make_sample(400, seed=100 + s) for s in range(80)]
    for name in ("ece", "ace", "brier_score", "auroc"):
        metric = metrics.CATALOG[name]
        arrays = [sample.arrays(metric.kind) for sample in samples]
        spread = np.std([metric.value(*pair) for pair in arrays], ddof=1)
        stderr = np.mean([metric.stderr(*pair) for pair in arrays[:5]])
        assert stderr == pytest.approx(spread, rel=0.3)


def test_seed_and_draws_matter_and_repeat(golden):
    args = (golden.confidence, golden.correct)
    assert metrics.ece_stderr(*args) == metrics.ece_stderr(*args, draws=1000, seed=0)
    assert metrics.ece_stderr(*args) != metrics.ece_stderr(*args, seed=1)
    assert metrics.ece_stderr(*args) != metrics.ece_stderr(*args, draws=999)


def test_chunks_of_draws_do_not_matter():
    whole = np.concatenate(list(resampling.resampling_weights(37, 50, 0)))
    chunks = list(resampling.resampling_weights(37, 50, 0, chunk=37 * 7))
    assert len(chunks) == 8
    assert np.array_equal(whole, np.concatenate(chunks))
    assert np.array_equal(whole.sum(axis=1), np.full(50, 37))
    one_row_each = list(resampling.resampling_weights(37, 50, 0, chunk=1))
    assert np.array_equal(whole, np.concatenate(one_row_each))


@pytest.mark.parametrize("draws", [1, 0, -5, 2.0, True])
def test_draws_are_an_integer_of_at_least_two(golden, draws):
    for name in ("ece", "ace_top_label", "aurc"):
        with pytest.raises(ValueError, match=r"draws is .*; it must be an integer of at least 2"):
            metrics.CATALOG[name].stderr(golden.confidence, golden.correct, draws=draws)


def test_bootstrap_stderr_refuses_arrays_of_different_lengths():
    with pytest.raises(ValueError, match="same number of rows"):
        metrics.bootstrap_stderr(lambda a, b: 0.0, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="same number of rows"):
        metrics.bootstrap_stderr(np.mean, [])


# Above EXACT_DOCS docs: the sums are drawn instead of the docs. Both forms on the same data must agree; a
# standard deviation over 1,000 draws is itself uncertain by 2 %, and no estimate may move by more than noise.


def assert_same_distribution(exact, drawn, rel=0.1):
    error = exact.std(ddof=1)
    assert drawn.std(ddof=1) == pytest.approx(error, rel=rel)
    assert drawn.mean() == pytest.approx(exact.mean(), abs=5 * error / np.sqrt(len(exact) / 2))


@pytest.fixture(scope="module", params=[{}, {"ties": True}, {"ragged": True, "k": 5}], ids=str)
def large(request, make_sample):
    return make_sample(20_000, seed=20, **request.param)


@pytest.mark.parametrize("name", ["ece", "mce", "rms_ce", "sce", "full_ece_choices", "full_ece"])
@pytest.mark.slow
def test_normal_sums_agree_with_the_exact_bootstrap(large, name, monkeypatch):
    metric = metrics.CATALOG[name]
    if metric.kind == "full_vocabulary":
        if isinstance(large.probs, list):
            pytest.skip("Full-ECE has one vocabulary: there is no ragged case")
        n_positions = np.repeat([1, 3], [5_000, 5_000])
        cuts = np.cumsum(n_positions) - n_positions
        gaps = np.add.reduceat(metrics.position_gap_sums(large.probs, large.labels), cuts)
        arrays = (gaps, n_positions)
    else:
        arrays = large.arrays(metric.kind)
    estimates = []
    monkeypatch.setattr(resampling, "spread", lambda values, n_docs: estimates.append(values) or 0.0)
    metric.stderr(*arrays)
    monkeypatch.setattr(resampling, "EXACT_DOCS", 5_000)
    metric.stderr(*arrays)
    assert not np.array_equal(*estimates)
    # The maximum is often that of a bin with few docs: its tail is heavy, its deviation uncertain by 7 %.
    assert_same_distribution(*estimates, rel=0.2 if name == "mce" else 0.1)


@pytest.mark.slow
def test_normal_ranges_agree_with_the_exact_bootstrap(large):
    n_docs, n_bins = len(large.labels), 10
    choices = check_choices(large.probs, large.labels)
    classes = [
        ranges.sort_forecasts(choices.doc[k], choices.probs[k], choices.hits[k])
        for k in (np.flatnonzero(choices.position == k) for k in range(choices.n_choices.max()))
    ]
    exact = ranges.exact_ranges(classes, n_docs, n_bins=n_bins, draws=1000, seed=0)
    for per_range in (ranges.MIN_CELLS_PER_RANGE, ranges.CELLS_PER_RANGE):
        drawn = ranges.normal_ranges(classes, n_docs, n_bins=n_bins, n_cells=per_range * n_bins, draws=1000, seed=0)
        aces = [(np.abs(gaps) / sizes).mean(axis=(1, 2)) for gaps, sizes in (exact, drawn)]
        assert_same_distribution(*aces)
        for k, class_docs in enumerate(classes):  # sizes vary where a class is not in every doc
            totals = [sizes[:, k].sum(axis=1) for _, sizes in (exact, drawn)]
            spread = np.sqrt(len(class_docs.docs) * (1 - len(class_docs.docs) / n_docs))
            assert totals[1].std() == pytest.approx(spread, rel=0.1, abs=1)
            assert totals[1].mean() == pytest.approx(totals[0].mean(), abs=0.2 * spread + 1)


@pytest.mark.slow
def test_ace_above_the_limit(large, monkeypatch):
    exact = metrics.ace_stderr(large.probs, large.labels)
    exact_top = metrics.ace_top_label_stderr(large.confidence, large.correct)
    monkeypatch.setattr(resampling, "EXACT_DOCS", 5_000)
    monkeypatch.setattr(ranges, "MIN_DOCS_PER_CELL", 10)
    drawn = metrics.ace_stderr(large.probs, large.labels)
    drawn_top = metrics.ace_top_label_stderr(large.confidence, large.correct)
    assert exact != drawn == pytest.approx(exact, rel=0.1)
    assert exact_top != drawn_top == pytest.approx(exact_top, rel=0.1)


def test_ace_with_a_rare_class_or_many_ranges_draws_every_doc(make_sample, monkeypatch):
    sample = make_sample(3_000, seed=21)
    rare = [*sample.probs[:-1], np.full(5, 0.2)]
    exact = metrics.ace_stderr(rare, sample.labels, draws=50)
    many = metrics.ace_stderr(sample.probs, sample.labels, n_bins=300, draws=50)
    monkeypatch.setattr(resampling, "EXACT_DOCS", 1_000)
    monkeypatch.setattr(ranges, "MIN_DOCS_PER_CELL", 3)
    assert metrics.ace_stderr(rare, sample.labels, draws=50) == exact
    assert metrics.ace_stderr(sample.probs, sample.labels, n_bins=300, draws=50) == many


def test_a_rare_bin_or_class_is_drawn_exactly(make_sample, monkeypatch):
    """Normal counts would give a bin of two docs 0.1 of a doc, or minus one, and so upset the maximum."""
    confidence, correct = np.full(5_000, 0.95), np.arange(5_000) % 20 != 0
    confidence[:2], correct[:2] = 0.55, [True, False]
    sample = make_sample(5_000, k=3, seed=22)
    probs = [np.array([0.1, 0.1, 0.1, 0.7]), *sample.probs[1:]]
    exact = metrics.mce_stderr(confidence, correct), metrics.sce_stderr(probs, sample.labels)
    monkeypatch.setattr(resampling, "EXACT_DOCS", 1_000)
    drawn = metrics.mce_stderr(confidence, correct), metrics.sce_stderr(probs, sample.labels)
    assert exact != drawn == pytest.approx(exact, rel=0.07)


def test_counts_are_drawn_exactly():
    confidence = np.full(5_000, 0.95)
    confidence[:2] = 0.55
    correct = np.arange(5_000) % 2
    sums = np.zeros((5_000, 20))
    index = metrics.bin_index(confidence)
    sums[np.arange(5_000), index] = correct - confidence
    sums[np.arange(5_000), 10 + index] = 1
    totals = resampling.normal_totals(sums, index, draws=2000, seed=0)
    counts = totals[:, 10:]
    assert np.allclose(counts, np.rint(counts), atol=1e-9)
    assert np.allclose(counts.sum(axis=1), 5_000)
    assert (counts[:, 5] < 0.5).mean() == pytest.approx(np.exp(-2), abs=0.03)  # Poisson(2) is 0


# Undefined errors.


@pytest.mark.parametrize("name", sorted(metrics.CATALOG))
def test_one_doc_has_no_standard_error(name):
    metric = metrics.CATALOG[name]
    arrays = {
        "top_label": ([0.95], [1]),
        "choices": ([[0.9, 0.1]], [0]),
        "full_vocabulary": ([[-0.1, 0.1]], [1]),
    }[metric.kind]
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metric.stderr(*arrays))


def test_one_doc_has_no_corp_or_one_class_error():
    with pytest.warns(UndefinedMetricWarning, match="at least two docs"):
        assert np.isnan(metrics.corp_decomposition_stderr([0.5], [1])).all()
    with pytest.warns(UndefinedMetricWarning, match="at least two docs"):
        assert np.isnan(metrics.ace_one_class_stderr([0.5], [1]))


@pytest.mark.parametrize(
    ("name", "confidence", "correct", "reason"),
    [
        ("auroc", [0.2, 0.7, 0.9], [0, 0, 1], "separates correct from wrong docs completely"),
        ("auroc", [0.9, 0.7, 0.2], [0, 0, 1], "separates correct from wrong docs completely"),
        ("auroc", [0.2, 0.7, 0.9], [1, 1, 1], "every doc is correct"),
        ("auroc", [0.2, 0.7, 0.9], [0, 0, 0], "every doc is wrong"),
        ("auroc", [0.2, 0.7, 0.9], [0, 1, 0], "two correct and two wrong docs"),
        ("auprc", [0.2, 0.7, 0.9], [0, 0, 0], "no doc is correct"),
        ("skill_score", [0.2, 0.7, 0.9], [1, 1, 1], "accuracy is 0 or 1"),
        ("confident_error_rate", [0.2, 0.7, 0.95], [1, 1, 1], "at least two docs with confidence >= 0.9"),
        ("ce_l2_debiased", [0.2, 0.7, 0.9], [1, 1, 0], "3 docs are fewer than two for each of 10 bins"),
        ("ece_debiased", [0.2, 0.7, 0.9], [1, 1, 0], "no bin holds two docs"),
    ],
)
def test_undefined_errors(name, confidence, correct, reason):
    with pytest.warns(UndefinedMetricWarning, match=reason):
        assert np.isnan(metrics.CATALOG[name].stderr(confidence, correct))


def test_infinite_nll_has_no_standard_error():
    probs, labels = [[1.0, 0.0], [0.5, 0.5]], [1, 0]
    assert metrics.nll(probs, labels) == np.inf
    with pytest.warns(UndefinedMetricWarning, match="infinite"):
        assert np.isnan(metrics.nll_stderr(probs, labels))


def test_draws_on_which_the_metric_is_undefined_are_left_out():
    """Two confident docs of twenty: one draw in eight has none, and says nothing about their error rate."""
    confidence, correct = np.append(np.full(18, 0.5), [0.95, 0.99]), np.append(np.ones(18), [0, 1])
    rates = []
    for indices in np.random.default_rng(0).integers(0, 20, size=(200, 20)):
        confident = correct[indices][confidence[indices] >= 0.9]
        if len(confident):
            rates.append(np.mean(1 - confident))
    assert 150 < len(rates) < 200
    stderr = metrics.confident_error_rate_stderr(confidence, correct, draws=200)
    assert stderr == pytest.approx(np.std(rates, ddof=1), **EXACT)
