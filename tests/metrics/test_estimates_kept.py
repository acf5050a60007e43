import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics.uncertainty import inversion
from lm_eval_calibration.metrics.uncertainty.kept import estimates_kept


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    real = inversion.error_estimate
    monkeypatch.setattr(inversion, "error_estimate", lambda vector, *a, **k: found.append(1) or real(vector, *a, **k))
    return found


def test_an_estimate_is_computed_once_within_and_anew_without(computed: list[int]) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=100)
    correct = (rng.random(100) < confidence).astype(int)
    alone = metrics.ece_interval(confidence, correct), metrics.ece_interval(confidence, correct)
    assert len(computed) == 2
    with estimates_kept():
        assert metrics.ece_interval(confidence, correct) == alone[0] == alone[1]
        estimate = metrics.CATALOG["ece"].estimate(confidence.copy(), correct.copy())
        assert (estimate.low, estimate.high) == alone[0]
        assert len(computed) == 3


def test_other_arrays_options_clusters_and_metrics_are_other_estimates(computed: list[int]) -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=100)
    correct = (rng.random(100) < confidence).astype(int)
    questions = [
        (metrics.ece_interval, (confidence, correct), {}),
        (metrics.ece_interval, (confidence, correct[::-1]), {}),
        (metrics.ece_interval, (confidence[::-1], correct), {}),
        (metrics.ece_interval, (confidence, correct), {"n_bins": 5}),
        (metrics.ece_interval, (confidence, correct), {"level": 0.9}),
        (metrics.ece_interval, (confidence, correct), {"seed": 1}),
        (metrics.ece_interval, (confidence, correct), {"cluster": np.arange(100) // 2}),
        (metrics.ece_interval, (confidence, correct), {"cluster": np.arange(100) // 4}),
        (metrics.rms_ce_interval, (confidence, correct), {}),
    ]
    alone = [ask(*arrays, **options) for ask, arrays, options in questions]
    with estimates_kept():
        for _ in range(2):
            assert [ask(*arrays, **options) for ask, arrays, options in questions] == alone
    assert len(computed) == 2 * len(questions)


def test_ragged_rows_of_other_lengths_are_other_arrays() -> None:
    one = [np.array([0.5, 0.5]), np.array([0.2, 0.3, 0.5])] * 20
    other = [np.array([0.5, 0.5]), np.array([0.2, 0.3, 0.5])] * 19 + [np.array([0.5, 0.5])] * 2
    labels = [[1, 0] * 20, [1, 0] * 19 + [1, 0]]
    alone = [metrics.brier_score_interval(*arrays) for arrays in zip((one, other), labels, strict=True)]
    with estimates_kept():
        assert [metrics.brier_score_interval(*arrays) for arrays in zip((one, other), labels, strict=True)] == alone


def test_what_is_undefined_says_so_each_time() -> None:
    with estimates_kept():
        for _ in range(2):
            with pytest.warns(UndefinedMetricWarning):
                assert np.isnan(metrics.auroc_interval([0.5, 0.6], [1, 1])).all()


def test_what_can_be_told_by_addresses_only_is_computed_each_time(computed: list[int]) -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(size=100)
    correct = (rng.random(100) < confidence).astype(int)
    names = np.array([f"passage {i // 2}" for i in range(100)], dtype=object)
    with estimates_kept():
        found = [metrics.ece_interval(confidence, correct, cluster=names) for _ in range(2)]
        assert found == [metrics.ece_interval(confidence, correct, cluster=np.arange(100) // 2)] * 2
    assert len(computed) == 3
