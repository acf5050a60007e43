"""The steps of the bootstrap against their literal definitions."""

import numpy as np
import pytest

from lm_eval_calibration.metrics.uncertainty import ranges, resampling


def test_sums_up_to_a_few_stops():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 40))
    stops = rng.integers(0, 41, size=(6, 9))  # in no order
    stops[0], stops[1], stops[2, :5] = 0, 40, 17  # nothing, everything, the same several times
    stops[-1, :2] = 40, 0
    expected = [[row[:stop].sum() for stop in row_stops] for row, row_stops in zip(values, stops, strict=True)]
    np.testing.assert_allclose(ranges._sums_up_to(values, stops), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("levels", [5, 40, 10**9], ids=["ties", "few ties", "no ties"])
def test_ranges_of_weighted_docs_are_those_of_the_repeated_docs(levels):
    rng = np.random.default_rng(1)
    forecasts, outcomes = rng.integers(0, levels, 60) / levels, rng.integers(0, 2, 60).astype(float)
    ranked = ranges.sort_forecasts(np.arange(60), forecasts, outcomes)
    gaps, sizes = ranges.exact_ranges([ranked], 60, n_bins=7, draws=30, seed=3)
    weights = np.concatenate(list(resampling.resampling_weights(60, 30, 3)))
    for draw, weight in enumerate(weights):
        repeated = np.repeat(np.arange(60), weight)
        expected_gaps, expected_sizes = resampling_ranges(forecasts[repeated], outcomes[repeated], 7)
        np.testing.assert_allclose(gaps[draw, 0], expected_gaps, rtol=0, atol=1e-12)
        assert sizes[draw, 0].tolist() == expected_sizes


def resampling_ranges(forecasts, outcomes, n_bins):
    means = np.array([outcomes[forecasts == f].mean() for f in forecasts])
    order = np.argsort(forecasts, kind="stable")
    ranges = np.array_split((means - forecasts)[order], n_bins)
    return [r.sum() for r in ranges], [len(r) for r in ranges]


def test_weights_are_how_often_each_doc_is_drawn():
    indices = np.random.default_rng(4).integers(0, 300, size=(20, 300))
    weights = np.concatenate(list(resampling.resampling_weights(300, 20, 4, chunk=1000)))
    assert np.array_equal(weights, [np.bincount(row, minlength=300) for row in indices])


def test_mean_and_covariance_in_blocks(monkeypatch):
    monkeypatch.setattr(resampling, "BLOCK", 16)
    rng = np.random.default_rng(5)
    sums, docs = rng.normal(3, 1, size=(100, 4)), rng.permutation(100)[:70]
    mean, covariance = resampling._mean_and_covariance(sums, docs)
    np.testing.assert_allclose(mean, sums[docs].mean(axis=0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(sums[docs], rowvar=False, ddof=0), rtol=0, atol=1e-13)


def test_moments_of_cells_are_those_of_their_indicators():
    """Classes 0 and 1 are in every doc, class 2 in some."""
    rng = np.random.default_rng(6)
    n_docs, n_cells = 200, 5
    members = [np.arange(n_docs), rng.permutation(n_docs), rng.permutation(n_docs)[:150]]
    classes = [
        ranges.sort_forecasts(docs, rng.integers(0, 30, len(docs)) / 30, rng.integers(0, 2, len(docs)).astype(float))
        for docs in members
    ]
    features = []
    for forecasts in classes:
        cells = ranges._cells(forecasts, n_cells)
        counts, gaps = np.zeros((2, n_docs, cells.max() + 1))
        counts[forecasts.docs, cells], gaps[forecasts.docs, cells] = 1, forecasts.gaps
        features += [counts, gaps]
    matrix = np.concatenate(features, axis=1)
    totals, covariance, starts = ranges._cell_moments(classes, n_docs, n_cells)
    np.testing.assert_allclose(totals, matrix.sum(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(covariance, n_docs * np.cov(matrix, rowvar=False, ddof=0), rtol=0, atol=1e-11)
    assert starts == np.cumsum([0, *(2 * counts.shape[1] for counts in features[::2])]).tolist()


def test_the_root_of_a_covariance_does_not_turn_with_its_last_bits():
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    covariance = axes * [2, 2, 2, 0.25, 0, 0] @ axes.T  # three equal eigenvalues, and singular
    root = resampling.covariance_root(covariance)
    np.testing.assert_allclose(root @ root, covariance, rtol=0, atol=1e-12)
    for _ in range(20):
        noise = rng.normal(scale=1e-16, size=(6, 6))
        np.testing.assert_allclose(resampling.covariance_root(covariance + noise + noise.T), root, rtol=0, atol=1e-12)
    assert not resampling.covariance_root(np.zeros((3, 3))).any()
