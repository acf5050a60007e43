import copy
import json
import pickle

import numpy as np

from lm_eval_calibration.backends import TokenScores


def make() -> TokenScores:
    return TokenScores(
        (-1.5, True),
        log_probs=np.array([-0.5, -1.0]),
        large_probs=(np.array([0.6, 0.2]), np.array([0.37])),
        vocab_size=7,
        certificate={"backend": "x"},
    )


def test_unpacks_as_the_harness_unpacks_it() -> None:
    log_likelihoods, is_greedy = zip(*[make(), make()], strict=True)
    assert log_likelihoods == (-1.5, -1.5)
    assert is_greedy == (True, True)


def test_survives_pickle_and_copies() -> None:
    for again in (pickle.loads(pickle.dumps(make())), copy.deepcopy(make()), copy.copy(make())):
        assert again == (-1.5, True)
        assert isinstance(again, TokenScores)
        np.testing.assert_array_equal(again.log_probs, [-0.5, -1.0])
        assert [p.tolist() for p in again.large_probs] == [[0.6, 0.2], [0.37]]
        assert (again.vocab_size, again.certificate) == (7, {"backend": "x"})


def test_json_sees_a_pair() -> None:
    assert json.loads(json.dumps(make())) == [-1.5, True]


def test_answering_leaves_the_original_alone() -> None:
    original = make()
    answer = original.answering("request")
    assert (answer, answer.request, original.request) == ((-1.5, True), "request", None)
    assert answer.large_probs is original.large_probs


def test_plain_pair_has_no_distributions() -> None:
    assert not TokenScores((-1.0, False)).has_distributions
    assert make().has_distributions
