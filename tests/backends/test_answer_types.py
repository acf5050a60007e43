"""What backends return: stock answers with attributes, which survive caches and other processes."""

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

from lm_eval_calibration.backends import CorpusScores, GeneratedText, TokenScores, TokenSums

SCORES = TokenScores(
    (-1.5, True),
    log_probs=np.array([-0.5, -1.0]),
    large_probs=(np.array([0.6, 0.2]), np.array([0.37])),
    vocab_size=7,
    certificate={"backend": "x"},
)
SUMS = TokenSums(np.ones(2), np.array([1, 2]), np.ones(2), np.array([0, 1]))
CORPUS = CorpusScores(-2.5, n_tokens=3, sums=SUMS, vocab_size=7, certificate={"backend": "x"})
TEXT = GeneratedText("four", token_log_probs=np.array([-0.5]), certificate={"token_probabilities": "exact"})


def test_the_harness_sees_stock_answers() -> None:
    assert list(zip(*[SCORES, SCORES], strict=True)) == [(-1.5, -1.5), (True, True)]
    assert json.loads(json.dumps([SCORES, CORPUS, TEXT])) == [[-1.5, True], -2.5, "four"]
    assert type(TEXT.strip()) is str


@pytest.mark.parametrize("answer", [SCORES, CORPUS, TEXT], ids=lambda answer: type(answer).__name__)
def test_answers_survive_pickle_and_copies(answer: Any) -> None:
    for again in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer), copy.copy(answer)):
        assert again == answer
        assert type(again) is type(answer)
        np.testing.assert_equal(vars(again), {**vars(answer), "request": None})


@pytest.mark.parametrize("answer", [SCORES, CORPUS])
def test_answering_leaves_the_original_alone_and_other_processes_without_the_request(answer: Any) -> None:
    known = answer.answering("request")
    assert (known, known.request, answer.request) == (answer, "request", None)
    assert known.certificate is answer.certificate
    assert pickle.loads(pickle.dumps(known)).request is None


def test_follow_up_answers_are_a_copy_s() -> None:
    asked = TEXT.with_follow_up_answers([SCORES, None])
    assert asked.follow_up_answers == (SCORES, None)
    assert asked.token_log_probs is TEXT.token_log_probs
    assert TEXT.follow_up_answers == ()


def test_what_a_backend_leaves_out_has_a_default() -> None:
    assert not TokenScores((-1.0, False)).has_distributions
    assert SCORES.has_distributions
    assert not CorpusScores(-1.0).has_distributions
    assert not GeneratedText("x").has_probabilities
    with pytest.raises(TypeError, match="TokenScores has no attribute probs"):
        TokenScores((-1.0, False), probs=np.ones(1))


def test_sums_add_up() -> None:
    one = TokenSums.zeros(2)
    one.add(SUMS)
    one.add(SUMS)
    np.testing.assert_array_equal(one.top_count, [2, 4])
    np.testing.assert_array_equal(one.gap_sums, [2, 2])
