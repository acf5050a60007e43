"""The wording of the query, and P(true) from two log-likelihoods."""

import math

import pytest

from lm_eval_calibration.tasks.confidences.p_true_query import KADAVATH, KAPOOR, QUERIES


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_prompt_is_the_context_the_answer_and_the_question(query) -> None:
    prompt = query.prompt("Which organ makes insulin?\nA. lung\nB. pancreas\nAnswer:", " B")
    assert prompt.startswith("Which organ makes insulin?\nA. lung\nB. pancreas\nAnswer: B\n")
    assert prompt.endswith(":")  # the continuations begin with the blank that follows it
    assert all(text.startswith(" ") and text.strip()[-1].isalnum() for text in query.continuations)


def test_which_continuation_says_that_the_answer_is_right() -> None:
    assert "(ii): yes" in KAPOOR.question
    assert KAPOOR.continuations[KAPOOR.true] == " ii"
    assert "(A) True" in KADAVATH.question
    assert KADAVATH.continuations[KADAVATH.true] == " (A"


@pytest.mark.parametrize(("false", "true"), [(0.1, 0.3), (0.3, 0.1), (1e-9, 2e-9), (0.5, 0.5)])
def test_p_true_is_a_share_of_two_probabilities(false: float, true: float) -> None:
    assert KAPOOR.p_true([math.log(false), math.log(true)]) == pytest.approx(true / (true + false), abs=1e-12)
    assert KADAVATH.p_true([math.log(true), math.log(false)]) == pytest.approx(true / (true + false), abs=1e-12)


def test_nested_continuations_are_told_apart_by_the_token_after_the_common_one() -> None:
    first, second = 0.4, 0.75  # P(" i"), P("i" | " i")
    nested = KAPOOR.p_true([math.log(first), math.log(first * second)], nested=True)
    assert nested == pytest.approx(second, abs=1e-12)
    assert KAPOOR.p_true([math.log(first), math.log(first * second)]) < 0.5  # however sure the model is
    assert KAPOOR.p_true([-1.0, -1.0 + 1e-7], nested=True) == 1


def test_the_ends() -> None:
    assert KAPOOR.p_true([-math.inf, -3.0]) == 1
    assert KAPOOR.p_true([-3.0, -math.inf]) == 0
    assert KAPOOR.p_true([-2000.0, 0.0]) == 1
    assert KAPOOR.p_true([0.0, -2000.0]) == 0
    assert KAPOOR.p_true([0.0, -math.inf], nested=True) == 0
    assert math.isnan(KAPOOR.p_true([-math.inf, -math.inf]))
    assert math.isnan(KAPOOR.p_true([math.nan, -1.0]))
