"""One doc under several orders of its choices: against the definitions, on known truth and on the edges."""

import itertools

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics


def random_docs(seed=0, n=30):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(rng.integers(2, 6)), size=rng.integers(2, 5)) for _ in range(n)]


def naive_spread(docs):
    total = 0.0
    for orders in docs:
        means = [sum(p[k] for p in orders) / len(orders) for k in range(len(orders[0]))]
        total += sum(sum(abs(p[k] - means[k]) for k in range(len(p))) / 2 for p in orders) / len(orders)
    return total / len(docs)


def naive_changes(docs):
    shares = []
    for orders in docs:
        answers = [list(p).index(max(p)) for p in orders]
        pairs = list(itertools.combinations(answers, 2))
        shares.append(sum(a != b for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_definitions_written_with_loops(seed):
    docs = random_docs(seed)
    assert metrics.position_spread(docs) == pytest.approx(naive_spread(docs), abs=1e-12)
    assert metrics.answer_changes(docs) == pytest.approx(naive_changes(docs), abs=1e-12)


def test_a_model_that_sees_only_the_content_has_none():
    docs = [np.tile([0.7, 0.2, 0.1], (3, 1))] * 4
    assert metrics.position_spread(docs) == pytest.approx(0, abs=1e-15)
    assert metrics.answer_changes(docs) == 0


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_model_that_sees_only_the_place_has_all_there_is(k):
    docs = [np.eye(k)] * 3  # under each rotation another choice stands in the favoured place
    assert metrics.position_spread(docs) == pytest.approx(1 - 1 / k)
    assert metrics.answer_changes(docs) == 1


def test_the_share_of_changes_does_not_grow_with_the_number_of_orders():
    rng = np.random.default_rng(1)

    def coin_tossing(n_orders):
        return [np.eye(2)[rng.integers(0, 2, n_orders)] for _ in range(4000)]

    for n_orders in (2, 3, 8):
        assert metrics.answer_changes(coin_tossing(n_orders)) == pytest.approx(0.5, abs=0.03)


def test_one_order_shows_no_spread_and_no_changes_are_defined():
    assert metrics.position_spread([[[0.4, 0.6]]]) == 0
    with pytest.warns(UndefinedMetricWarning, match="no doc was scored under two orders"):
        assert np.isnan(metrics.answer_changes([[[0.4, 0.6]]]))


def test_docs_of_one_order_are_left_out_of_the_changes():
    assert metrics.answer_changes([[[0.4, 0.6]], np.eye(2)]) == 1


def test_equal_choices_are_answered_by_the_first():
    assert metrics.answer_changes([[[0.5, 0.5], [0.6, 0.4]]]) == 0


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([], "probs is empty"),
        ([[0.5, 0.5]], r"probs\[0\] has shape \(2,\); it must be \[n_orders, K\]"),
        ([np.empty((0, 3))], r"probs\[0\] has shape \(0, 3\)"),
        ([np.eye(2), [[0.5, 0.5], [0.9, 0.3]]], r"doc 1: probs\[1\] sums to 1.2, not 1"),
        ([[[np.nan, 0.5]]], r"doc 0: probs\[0\]\[0\] is nan"),
        ([[[70.0, 30.0]]], r"doc 0: probs\[0\]\[0\] is 70.0, outside"),
    ],
)
def test_bad_input_names_doc_order_and_value(probs, message):
    with pytest.raises(ValueError, match=message):
        metrics.position_spread(probs)
