"""Smooth reliability curves against the regression written naively, on known truth, and with few docs."""

import numpy as np
import pytest

from lm_eval_calibration.plots.smooth import FEWEST, NARROWEST, bandwidth, prepare_difference, prepare_smooth


def made(n: int, seed: int = 0, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 2, n)
    return confidence, (rng.random(n) < confidence**power).astype(int)


def regression(confidence: np.ndarray, values: np.ndarray, at: float, width: float) -> float:
    """The intercept of a weighted least squares line about ``at``."""
    root = np.exp(-((confidence - at) ** 2) / width**2 / 4)
    design = np.stack([np.ones_like(confidence), confidence - at], axis=1)
    return float(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0][0])


def weights(confidence: np.ndarray, at: float, width: float) -> np.ndarray:
    """By which each outcome counts: the regression of one outcome at a time."""
    return np.array([regression(confidence, row, at, width) for row in np.eye(len(confidence))])


def test_the_curve_is_a_local_linear_regression() -> None:
    confidence, correct = made(300)
    width = bandwidth(confidence)
    low, high = np.quantile(confidence, [0.25, 0.75])
    assert width == pytest.approx(1.06 * min(confidence.std(), (high - low) / 1.34) * 300**-0.2, abs=1e-12)
    curve = prepare_smooth(confidence, correct)
    for at, value in zip(curve.at[::10], curve.value[::10], strict=True):
        assert value == pytest.approx(np.clip(regression(confidence, correct, at, width), 0, 1), abs=1e-10)


def test_the_band_is_wilsons_with_the_effective_number_of_docs() -> None:
    confidence, correct = made(120, seed=1)
    curve = prepare_smooth(confidence, correct)
    for at, value, low, high in list(zip(*curve, strict=True))[::15]:
        n = 1 / np.sum(weights(confidence, at, bandwidth(confidence)) ** 2)
        assert n >= FEWEST
        for end in (low, high):
            if 0 < end < 1:  # where (p - end)^2 = z^2 end (1 - end) / n
                assert (value - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n, abs=1e-9)


def test_a_calibrated_models_curve_is_the_diagonal_at_the_ends_too() -> None:
    confidence, _ = made(4000, seed=2)
    for at in (0.15, 0.5, 0.99):
        assert regression(confidence, confidence, at, bandwidth(confidence)) == pytest.approx(at, abs=1e-12)


def test_the_band_covers_the_smoothed_truth() -> None:
    covered = []
    for seed in range(60):
        confidence, correct = made(400, seed, power=2.0)
        width, curve = bandwidth(confidence), prepare_smooth(confidence, correct)
        for at, _, low, high in list(zip(*curve, strict=True))[::10]:
            covered.append(low <= regression(confidence, confidence**2, at, width) <= high)
    assert 0.93 <= np.mean(covered) <= 0.985


def test_docs_of_one_cluster_count_together() -> None:
    confidence, correct = made(200, seed=3)
    twice = np.repeat(confidence, 2), np.repeat(correct, 2)
    alone, together = prepare_smooth(*twice), prepare_smooth(*twice, cluster=np.repeat(np.arange(200), 2))
    wide = {at: high - low for at, _, low, high in zip(*together, strict=True)}
    assert all(wide[at] > high - low for at, _, low, high in zip(*alone, strict=True) if at in wide)


def test_where_there_is_little_to_see_there_is_no_curve() -> None:
    assert prepare_smooth([0.5] * 100, [0, 1] * 50).at == ()
    assert prepare_smooth([0.2, 0.4, 0.9], [0, 1, 1]).at == ()
    confidence = np.r_[np.linspace(0.5, 0.9, 100), 0.01]
    assert min(prepare_smooth(confidence, confidence > 0.7).at) > 0.3
    assert bandwidth(np.full(10, 0.5)) == NARROWEST
    with pytest.raises(ValueError, match=r"1\.5"):
        prepare_smooth([0.5, 1.5], [0, 1])


def test_a_difference_is_of_the_two_curves_and_its_band_of_paired_residuals() -> None:
    (conf_a, hit_a), (conf_b, hit_b) = made(300, seed=4), made(300, seed=5, power=2)
    for paired in (True, False):
        found = prepare_difference((conf_a, hit_a), (conf_b, hit_b), paired=paired)
        for at, value, low, high in list(zip(*found, strict=True))[::12]:
            one, other = weights(conf_a, at, bandwidth(conf_a)), weights(conf_b, at, bandwidth(conf_b))
            assert value == pytest.approx(other @ hit_b - one @ hit_a, abs=1e-9)
            left, right = one * (hit_a - one @ hit_a), other * (hit_b - other @ hit_b)
            variance = np.sum((right - left) ** 2) if paired else np.sum(left**2) + np.sum(right**2)
            if low > -1 and high < 1:
                assert (high - low) / 2 == pytest.approx(1.959963984540054 * np.sqrt(variance), abs=1e-9)


def test_a_model_does_not_differ_from_itself() -> None:
    data = made(100, seed=6)
    found = prepare_difference(data, data, paired=True)
    assert found.at
    assert set(found.value) == set(found.low) == set(found.high) == {0.0}
    with pytest.raises(ValueError, match="paired docs: 100 of a and 50 of b"):
        prepare_difference(data, made(50), paired=True)
