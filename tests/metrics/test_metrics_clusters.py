"""Docs that were drawn together: definitions, edges, and that intervals over docs alone would not hold."""

import numpy as np
import pytest

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG, GENERATION_CATALOG, Run, compare
from lm_eval_calibration.metrics.uncertainty import clusters


def draw(rng, n_clusters, size, shared=0.5):
    """Calibrated docs whose answers are right or wrong together."""
    from scipy.special import ndtr

    cluster = np.repeat(np.arange(n_clusters), size)
    latent = np.sqrt(shared) * rng.normal(size=n_clusters)[cluster] + np.sqrt(1 - shared) * rng.normal(
        size=len(cluster)
    )
    confidence = rng.uniform(0.4, 0.95, len(cluster))
    return confidence, (ndtr(latent) < confidence).astype(int), cluster


def test_the_standard_error_of_a_mean_is_that_of_cluster_sums():
    confidence, correct, cluster = draw(np.random.default_rng(0), 25, 8)
    gaps = confidence - correct
    sums = np.array([np.sum(gaps[cluster == g] - gaps.mean()) for g in range(25)])
    expected = np.sqrt(25 / 24 * np.sum(sums**2)) / 200
    assert metrics.overconfidence_stderr(confidence, correct, cluster=cluster) == pytest.approx(expected, abs=1e-12)
    assert expected > 1.5 * metrics.overconfidence_stderr(confidence, correct)


def test_sums_for_intervals_are_those_of_a_jackknife_over_clusters():
    """With each cluster left out in turn the mean moves by its sum / N, whatever the clusters' sizes."""
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 12, 150)
    values = rng.normal(size=150) + rng.normal(size=12)[cluster]
    moved = [values.mean() - values[cluster != g].mean() for g in range(12)]
    sums = clusters.independent_sums(values - values.mean(), cluster)
    np.testing.assert_allclose(sums / 150, moved, atol=1e-12)
    assert clusters.influence_stderr(values - values.mean(), cluster) == pytest.approx(np.linalg.norm(moved), abs=1e-12)


def test_a_rare_class_is_counted_by_clusters():
    correct = np.repeat([1, 0], [60, 40])
    assert clusters.n_apart(correct == 0, None) == 40
    assert clusters.n_apart(correct == 0, np.repeat(np.arange(5), 20)) == 2
    confidence = np.random.default_rng(0).uniform(size=100)
    with pytest.warns(UserWarning, match="10 wrong docs in different clusters, and there are 3 and 2"):
        assert np.isnan(metrics.aurc_interval(confidence, correct, cluster=np.repeat(np.arange(5), 20))).all()
    low, high = metrics.auroc_interval(confidence, correct, cluster=np.repeat(np.arange(5), 20))
    alone = metrics.auroc_interval(confidence, correct)
    assert high - low > 2 * (alone[1] - alone[0])


@pytest.mark.parametrize("name", ["overconfidence", "brier_top_label", "acc", "confident_error_rate", "auroc"])
def test_docs_in_clusters_of_one_are_docs(name):
    confidence, correct, _ = draw(np.random.default_rng(1), 80, 1)
    arrays, alone = (confidence, correct), [f"doc {i}" for i in range(80)]
    metric = metrics.COMPARED[name]
    assert metric.interval(*arrays, cluster=alone) == pytest.approx(metric.interval(*arrays), abs=1e-9)


@pytest.mark.parametrize("name", GENERATION_CATALOG)
def test_every_metric_of_a_confidence_takes_clusters(name):
    """The interval of docs that come in eights is wider; that of another naming of the clusters is the same."""
    metric = GENERATION_CATALOG[name]
    if metric.kind != "top_label" or metric.requires:
        pytest.skip("takes other arrays, or a package")
    confidence, correct, cluster = draw(np.random.default_rng(2), 40, 8, shared=0.9)
    low, high = metric.interval(confidence, correct, cluster=cluster)
    alone = metric.interval(confidence, correct)
    assert high - low > alone[1] - alone[0]
    assert metric.interval(confidence, correct, cluster=cluster * 3 + 1) == (low, high)
    assert metric.stderr(confidence, correct, cluster=cluster) > 0
    if metric.null is not None and name not in ("smece", "ece_debiased", "ce_l2_debiased", "rms_ce_mass"):
        assert 0 < metric.null(confidence, correct, cluster=cluster).p_value <= 1


@pytest.mark.parametrize("name", ["brier_score", "nll", "ace", "sce", "full_ece_choices"])
def test_metrics_of_choices_take_clusters(make_sample, name):
    sample, metric = make_sample(200), CATALOG[name]
    arrays = [np.repeat(np.asarray(array), 4, axis=0) for array in (sample.probs, sample.labels)]
    copies = np.repeat(np.arange(200), 4)
    low, high = metric.interval(*arrays, cluster=copies)
    narrow = metric.interval(*arrays)
    assert high - low > 1.3 * (narrow[1] - narrow[0])
    once = metric.stderr(sample.probs, sample.labels)
    assert metric.stderr(*arrays, cluster=copies) == pytest.approx(once, rel=0.15)


def test_four_copies_of_every_doc_say_no_more_than_one():
    confidence, correct, _ = draw(np.random.default_rng(3), 300, 1)
    four = [np.repeat(array, 4) for array in (confidence, correct)]
    copies = np.repeat(np.arange(300), 4)
    for name in ("acc", "overconfidence", "auroc", "ece"):
        metric = metrics.COMPARED[name]
        once = np.diff(metric.interval(confidence, correct))[0]
        assert np.diff(metric.interval(*four, cluster=copies))[0] == pytest.approx(once, rel=0.2), name
    a, b = Run(*four), Run(four[0] ** 2, four[1])
    found = compare(a, b, names=["brier_top_label"], cluster=copies)["brier_top_label"]
    single = compare(Run(confidence, correct), Run(confidence**2, correct), names=["brier_top_label"])
    assert found.high - found.low == pytest.approx(
        single["brier_top_label"].high - single["brier_top_label"].low, rel=0.2
    )


def test_unequal_clusters_have_fewer_degrees_of_freedom():
    assert clusters.degrees_of_freedom(40, np.repeat(np.arange(10), 4)) == pytest.approx(9)
    unequal = np.repeat(np.arange(10), [31, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    assert 1 <= clusters.degrees_of_freedom(40, unequal) < 1.8


@pytest.mark.parametrize(("cluster", "message"), [([0, 1], "one name for each of 3 docs")])
def test_bad_clusters_are_named(cluster, message):
    with pytest.raises(ValueError, match=message):
        metrics.ece_interval([0.5, 0.6, 0.7], [1, 0, 1], cluster=cluster)


def test_one_cluster_has_a_value_and_a_reason_in_place_of_an_interval():
    arrays, one = ([0.5, 0.6, 0.7], [1, 0, 1]), [0, 0, 0]
    with pytest.warns(UserWarning, match="all 3 docs are of one cluster"):
        assert np.isnan(metrics.ece_interval(*arrays, cluster=one)).all()
    with pytest.warns(UserWarning, match="takes two clusters"):
        assert np.isnan(metrics.ece_stderr(*arrays, cluster=one))
    with pytest.warns(UserWarning, match="takes two clusters"):
        null = metrics.ece_null(*arrays, cluster=one)
    assert null.value == metrics.ece(*arrays)
    assert np.isnan(null.p_value)


def test_unpaired_runs_that_share_clusters_are_not_independent():
    """Half of each cluster's docs against the other half: what moves a cluster moves both."""
    confidence, correct, cluster = draw(np.random.default_rng(5), 60, 8, shared=0.9)
    half = np.arange(480) % 2 == 0
    a, b = Run(confidence[half], correct[half]), Run(confidence[~half], correct[~half])
    clusters_of = (cluster[half], cluster[~half])
    shared = compare(a, b, names=["overconfidence"], paired=False, cluster=clusters_of)["overconfidence"]
    others = (cluster[half], cluster[~half] + 1000)
    apart = compare(a, b, names=["overconfidence"], paired=False, cluster=others)["overconfidence"]
    assert shared.high - shared.low < 0.7 * (apart.high - apart.low)
    assert shared.difference == apart.difference


def test_the_standard_error_of_auroc_is_the_jackknife_over_clusters():
    confidence, correct, cluster = draw(np.random.default_rng(8), 12, 6)
    confidence = np.round(confidence, 1)  # ties
    without = [metrics.auroc(confidence[cluster != g], correct[cluster != g]) for g in range(12)]
    expected = np.sqrt(11 / 12 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert metrics.auroc_stderr(confidence, correct, cluster=cluster) == pytest.approx(expected, abs=1e-12)


def test_a_null_over_clusters_varies_at_least_as_over_independent_docs():
    """All of 40 docs are right at 0.95: signs of such small surprises would say that no error can be chance."""
    arrays, cluster = (np.full(40, 0.95), np.ones(40)), np.arange(40) // 2
    assert metrics.overconfidence_null(*arrays, cluster=cluster).p_value > 0.1


@pytest.mark.slow
def test_intervals_hold_the_truth_where_docs_come_in_clusters():
    """30 clusters of 10, truth 0: of 100 draws 88 are 3 standard errors below 95%. Over docs alone they fail."""
    rng, held, alone, rejected = np.random.default_rng(6), 0, 0, 0
    for _ in range(100):
        confidence, correct, cluster = draw(rng, 30, 10)
        low, high = metrics.overconfidence_interval(confidence, correct, cluster=cluster)
        held += low <= 0 <= high
        low, high = metrics.overconfidence_interval(confidence, correct)
        alone += low <= 0 <= high
        rejected += metrics.ece_null(confidence, correct, cluster=cluster).p_value <= 0.05
    assert held >= 88
    assert alone < 80
    assert rejected <= 12
