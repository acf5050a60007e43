"""Thresholds with a guarantee: tests against their definitions, and what is returned where none holds."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from lm_eval_calibration.decisions.error_tests import (
    BETS,
    answers_needed,
    cluster_p_value,
    error_p_value,
    fewest_answers,
)
from lm_eval_calibration.decisions.thresholds import Answers, Guarantee, choose_threshold, ordered_candidates


def answers(n: int, seed: int, error: float = 1.0) -> Answers:
    """Answers of a model that is wrong ``error`` times as often as it says."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(8, 0.5, n)
    return Answers(confidence, (rng.random(n) < error * (1 - confidence)).astype(float))


def test_error_test_is_the_binomial_sum() -> None:
    naive = sum(math.comb(50, k) * 0.1**k * 0.9 ** (50 - k) for k in range(3))
    assert error_p_value(2, 50, 0.1) == pytest.approx(naive, rel=1e-12)
    above = sum(math.comb(50, k) * 0.1**k * 0.9 ** (50 - k) for k in range(9, 51))
    assert error_p_value(9, 50, 0.1, is_lower=False) == pytest.approx(above, rel=1e-11)
    assert error_p_value(0, 0, 0.1) == error_p_value(0, 0, 0.1, is_lower=False) == 1


@pytest.mark.parametrize(("n_wrong", "n"), [(0, 60), (3, 200), (17, 500)])
def test_error_test_is_clopper_and_pearsons_bound(n_wrong: int, n: int) -> None:
    bound = beta.ppf(0.95, n_wrong + 1, n - n_wrong)
    assert error_p_value(n_wrong, n, bound) == pytest.approx(0.05, rel=1e-9)


def test_wealth_is_that_of_each_bet_in_turn() -> None:
    rng = np.random.default_rng(0)
    wrong, answered, cluster = (rng.integers(0, high, 60).astype(float) for high in (2, 2, 12))
    cluster = np.unique(cluster, return_inverse=True)[1]
    wealth = []
    for bet in BETS:
        product = 1.0
        for g in range(cluster.max() + 1):
            lost = sum(answered[i] * (wrong[i] - 0.7) for i in range(60) if cluster[i] == g)
            product *= 1 - bet * lost / (0.3 * 12)
        wealth.append(product)
    assert cluster_p_value(wrong, answered, cluster, 0.7, 12) == pytest.approx(min(1, 1 / np.mean(wealth)), rel=1e-12)


def test_clusters_of_one_without_error_are_nearly_the_binomial_test() -> None:
    n = 400
    p_value = cluster_p_value(np.zeros(n), np.ones(n), np.arange(n), 0.05, 1)
    assert error_p_value(0, n, 0.05) < p_value < 100 * error_p_value(0, n, 0.05)


@pytest.mark.parametrize("is_lower", [True, False])
def test_cluster_test_keeps_its_level(is_lower: bool) -> None:
    """Clusters that are all right or all wrong at just the error rate: rejected in 5% at most."""
    rng, draws = np.random.default_rng(1), 1000
    cluster = np.repeat(np.arange(40), 5)
    rejected = 0
    for _ in range(draws):
        wrong = np.repeat((rng.random(40) < 0.3).astype(float), 5)
        rejected += cluster_p_value(wrong, np.ones(200), cluster, 0.3, 5, is_lower=is_lower) <= 0.05
    assert rejected / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(("rate", "level", "n"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.1, 0.9, 22)])
def test_fewest_answers(rate: float, level: float, n: int) -> None:
    assert fewest_answers(rate, 1 - level) == n
    assert binom.cdf(0, n, rate) <= 1 - level < binom.cdf(0, n - 1, rate)


def test_as_many_answers_as_needed_find_it_as_often_as_said() -> None:
    n = answers_needed(0.03, 0.05, 0.05, 0.8)
    critical = binom.ppf(0.05, n, 0.05) - 1
    assert binom.cdf(critical, n, 0.03) == pytest.approx(0.8, abs=0.05)


def test_candidates_fall_from_the_safest_to_everything() -> None:
    some = answers(500, 0)
    candidates = ordered_candidates(some, 2000, 0.05)
    assert candidates == sorted(candidates, reverse=True)
    assert candidates[-1] == 0
    assert len(candidates) <= 101
    assert ordered_candidates(some.take(np.arange(0)), 2000, 0.05) == [0.0]


def test_threshold_is_the_last_in_the_row_of_rejections() -> None:
    ordering, testing = answers(500, 0), answers(2500, 1)
    found = choose_threshold(ordering, testing, Guarantee(0.05, 0.05))
    assert found.value is not None
    p_values = {}
    for value in ordered_candidates(ordering, len(testing), 0.05):
        answered = testing.confidence >= value
        p_values[value] = binom.cdf(testing.wrong[answered].sum(), answered.sum(), 0.05)
    before = [p for value, p in p_values.items() if value >= found.value]
    after = [p for value, p in p_values.items() if value < found.value]
    assert max(before) <= 0.05 < after[0]
    assert found.p_value == pytest.approx(p_values[found.value], rel=1e-9)
    assert found.n_answered == (testing.confidence >= found.value).sum()
    assert found.n_wrong == testing.wrong[testing.confidence >= found.value].sum()


def test_everything_is_answered_where_all_is_right() -> None:
    some = Answers(np.linspace(0.1, 1, 300), np.zeros(300))
    assert choose_threshold(some, some, Guarantee(0.05, 0.05)).value == 0


def test_nothing_is_answered_where_all_is_wrong() -> None:
    some = Answers(np.linspace(0.1, 1, 300), np.ones(300))
    found = choose_threshold(some, some, Guarantee(0.05, 0.05))
    assert found.value is None
    assert found.docs_needed is None


def test_few_docs_give_no_threshold_but_a_number_of_docs() -> None:
    """12 docs, all right, 1%: at least 299 answers would be needed."""
    right = Answers(np.linspace(0.5, 1, 12), np.zeros(12))
    found = choose_threshold(right.take(np.arange(2)), right.take(np.arange(2, 12)), Guarantee(0.01, 0.05))
    assert found.value is None
    assert found.docs_needed is not None
    assert found.docs_needed >= 299


def test_no_docs_to_order_or_to_test() -> None:
    none = answers(0, 0)
    found = choose_threshold(none, none, Guarantee(0.05, 0.05))
    assert (found.value, found.n_tested, found.docs_needed) == (None, 0, 59)
    assert choose_threshold(none, answers(2000, 1, 0.1), Guarantee(0.05, 0.05)).value == 0


def test_ties_are_answered_together() -> None:
    confidence = np.repeat([0.5, 0.8, 0.9], 200)
    wrong = np.concatenate([np.tile([0, 1], 100), np.zeros(400)])
    found = choose_threshold(Answers(confidence, wrong), Answers(confidence, wrong), Guarantee(0.05, 0.05))
    assert found.value == 0.8
    assert (found.n_answered, found.n_wrong) == (400, 0)
