"""Prediction sets: scores against their definitions, sets against MAPIE's, coverage on known truth."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import betabinom

from lm_eval_calibration.decisions.candidates import of_options
from lm_eval_calibration.decisions.prediction_sets import (
    RAPS_FREE,
    RAPS_PENALTY,
    SCORES,
    cross_conformal_quantiles,
    option_scores,
    quantile,
)


def forecasts(n: int, k: int = 4, seed: int = 0, sharpness: float = 1.0) -> tuple[Any, Any]:
    """Probabilities and the right options of a model whose probabilities are too sharp by a factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k))
    truth = softmax(logits, axis=1)
    return softmax(sharpness * logits, axis=1), (truth.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def naive_score(name: str, row: Any, k: int) -> float:
    """The score of an option, as the papers write it."""
    if name == "lac":
        return 1 - row[k]
    total = sum(p for p in row if p >= row[k])
    rank = 1 + sum(p > row[k] for p in row)
    return total + (RAPS_PENALTY * max(0, rank - RAPS_FREE) if name == "raps" else 0)


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_their_definitions(name: str) -> None:
    probs, labels = forecasts(50, 5)
    naive = [[naive_score(name, row, k) for k in range(5)] for row in probs]
    np.testing.assert_allclose(option_scores(name, probs), naive, atol=1e-12)
    of_right = [naive[i][label] for i, label in enumerate(labels)]
    np.testing.assert_allclose(of_options(probs, labels)[name].of_right, of_right, atol=1e-12)


@pytest.mark.parametrize("name", ["lac", "aps"])
def test_equal_options_have_equal_scores(name: str) -> None:
    scores = option_scores(name, np.array([[0.25, 0.25, 0.25, 0.25], [0.4, 0.2, 0.4, 0.0]]))
    assert len(set(scores[0].tolist())) == 1
    assert scores[1][0] == scores[1][2]


def test_the_least_probable_option_has_one_score_in_all_docs_whatever_was_rounded() -> None:
    probs, _ = forecasts(500, 7)
    assert len(set(probs.sum(axis=1).tolist())) > 1
    least = np.arange(500), probs.argmin(axis=1)
    assert set(option_scores("aps", probs)[least].tolist()) == {1.0}
    assert len(set(option_scores("raps", probs)[least].tolist())) == 1


@pytest.mark.parametrize("name", SCORES)
def test_docs_may_have_different_numbers_of_options(name: str) -> None:
    probs, labels = forecasts(30, 4)
    wide, wide_labels = forecasts(20, 6, seed=1)
    ragged = [*probs, *wide]
    scores = option_scores(name, ragged)
    np.testing.assert_array_equal(np.stack(scores[:30]), option_scores(name, probs))
    np.testing.assert_array_equal(np.stack(scores[30:]), option_scores(name, wide))
    candidates = of_options(ragged, [*labels, *wide_labels])[name]
    np.testing.assert_array_equal(candidates.of_right[:30], of_options(probs, labels)[name].of_right)
    assert [len(row) for row in candidates.sets(np.full(50, 0.5))] == [4] * 30 + [6] * 20


def test_quantile_is_the_order_statistic() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, 100) / 100.0)  # 99 scores
    assert quantile(scores, 0.1) == 0.90  # the 90th of 99
    assert quantile(scores, 0.01) == 0.99
    assert quantile(scores, 0.005) == math.inf
    assert quantile(np.array([]), 0.1) == math.inf
    assert quantile(np.zeros(18), 0.05) == math.inf
    assert quantile(np.zeros(19), 0.05) == 0


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_lac_sets_are_mapies(alpha: float) -> None:
    probs, labels = forecasts(900)
    np.testing.assert_array_equal(ours("lac", probs, labels, alpha), mapies("lac", probs, labels, alpha))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_aps_sets_are_mapies(alpha: float) -> None:
    """Without the random number of MAPIE's scores; where our set holds nothing, MAPIE's holds the first option."""
    probs, labels = forecasts(900)
    found, expected = ours("aps", probs, labels, alpha), mapies("aps", probs, labels, alpha)
    empty = found.sum(axis=1) == 0
    np.testing.assert_array_equal(found[~empty], expected[~empty])
    assert (expected[empty].sum(axis=1) == 1).all()
    assert not empty.all()


@pytest.mark.parametrize("name", SCORES)
def test_sets_cover_as_promised(name: str) -> None:
    """Over 2,000 samples: between 1 - alpha and 1 - alpha + 1 / (n + 1), within 3 Monte Carlo errors."""
    alpha, n, m, draws = 0.1, 50, 20, 2000
    covered = []
    for draw in range(draws):
        probs, labels = forecasts(n + m, seed=draw, sharpness=3)
        candidates = of_options(probs, labels)[name]
        q = quantile(candidates.of_right[:n], alpha)
        sets = candidates.take(np.arange(n, n + m)).sets(np.full(m, q))
        covered.append(np.asarray(sets)[np.arange(m), labels[n:]].mean())
    error = betabinom.std(m, math.ceil((n + 1) * (1 - alpha)), (n + 1) - math.ceil((n + 1) * (1 - alpha))) / m
    low, high = 1 - alpha, 1 - alpha + 1 / (n + 1)
    assert low - 3 * error / math.sqrt(draws) <= np.mean(covered) <= high + 3 * error / math.sqrt(draws)


def test_cross_conformal_leaves_the_own_fold_out() -> None:
    scores, fold = np.arange(20.0), np.arange(20) % 4
    calibrates = np.ones(20, dtype=bool)
    found = cross_conformal_quantiles(scores, fold, calibrates, 0.25)
    for i in range(20):
        assert found[i] == quantile(scores[fold != fold[i]], 0.25)
    calibrates[19] = False  # it shows, and calibrates no other
    others = scores[(fold != fold[0]) & calibrates]
    assert 19 not in others
    assert cross_conformal_quantiles(scores, fold, calibrates, 0.1)[0] == quantile(others, 0.1)


def ours(name: str, probs: Any, labels: Any, alpha: float) -> Any:
    candidates = of_options(probs, labels)[name]
    shown = candidates.take(np.arange(300, len(labels)))
    return shown.sets(np.full(len(labels) - 300, quantile(candidates.of_right[:300], alpha)))


def mapies(name: str, probs: Any, labels: Any, alpha: float) -> Any:
    """Sets of the library, whose random numbers are all 0."""
    classification = pytest.importorskip("mapie.classification", reason="MAPIE is not installed")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(probs.shape[1])

        def fit(self, inputs: Any, targets: Any) -> Any:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, inputs: Any) -> Any:
            return np.asarray(inputs)

        def predict(self, inputs: Any) -> Any:
            return np.asarray(inputs).argmax(axis=1)

    class Zeros(np.random.RandomState):
        def uniform(self, *_: Any, size: Any = None, **__: Any) -> Any:  # type: ignore[override]
            return np.zeros(size)

    model = classification.SplitConformalClassifier(
        Given(), confidence_level=1 - alpha, conformity_score=name, prefit=True, random_state=Zeros(0)
    )
    model.conformalize(probs[:300], labels[:300])
    options = {} if name == "lac" else {"conformity_score_params": {"include_last_label": False}}
    return model.predict_set(probs[300:], **options)[1][:, :, 0]
