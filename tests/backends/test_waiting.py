"""Requests that wait for answers to others of their call."""

from functools import partial
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lm_eval_calibration import backends
from lm_eval_calibration.backends import TokenScores, WaitsFor, let_wait

backends.install()


class Counting(LM):
    """Log-likelihoods that depend on the request's text alone; remembers what each call was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[tuple[str, str]]] = []

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        self.calls.append([request.args for request in requests])
        return [(-float(sum(map(ord, "".join(request.args))) % 97), False) for request in requests]

    loglikelihood_rolling = generate_until = None


def waiting_docs(n_docs: int = 3) -> list[Any]:
    """Three choices a doc, and before them two queries that wait for the best of them."""
    found: list[Any] = []
    for doc_id in range(n_docs):
        metadata = ("a_task", doc_id, 1)
        choices = [Instance("", {}, (f"question {doc_id}", choice), i, metadata) for i, choice in enumerate("xyz")]

        def about(scores: Any, choices: Any = choices, verdict: str = "no") -> tuple[str, str]:
            best = int(np.argmax([log_likelihood for log_likelihood, _ in scores]))
            return (f"{''.join(choices[best].args)}?", verdict)

        queries = [Instance("", {}, ("a placeholder", "no"), 3 + i, metadata) for i in range(2)]
        for query, verdict in zip(queries, ("no", "yes"), strict=True):
            let_wait(query, WaitsFor(choices, partial(about, verdict=verdict)))
        found += [*queries, *choices]
    return found


def test_requests_that_wait_are_sent_in_a_second_call() -> None:
    lm, requests = Counting(), waiting_docs()
    answers = backends.token_scores(lm, requests)
    first, second = lm.calls
    assert first == [(f"question {i}", choice) for i in range(3) for choice in "xyz"]
    assert len(second) == 6
    assert not any("placeholder" in context for context, _ in second)
    assert [request.args for request in requests if request.idx > 2] == second
    assert [tuple(answer) for answer in answers] == [tuple(pair) for pair in Counting().loglikelihood(requests)]
    assert [tuple(a) for a in backends.token_scores(lm, requests)] == [tuple(a) for a in answers]
    assert len(lm.calls) == 3, "they wait no more"


def test_a_request_that_stands_twice_in_a_call_is_answered_twice() -> None:
    requests = [request for request in waiting_docs(1) for _ in range(2)]
    answers = backends.token_scores(Counting(), requests)
    assert [tuple(answer) for answer in answers] == [tuple(pair) for pair in Counting().loglikelihood(requests)]


def test_a_backend_may_answer_them_as_soon_as_they_are_ready() -> None:
    class Quick(Counting):
        pass

    numbers: list[int] = []

    def score(lm: Any, requests: Any, deliver: Any) -> None:
        todo = list(requests)
        for number, request in enumerate(todo):
            numbers.append(number)
            (pair,) = lm.loglikelihood([request])
            todo += deliver(number, TokenScores(pair, log_probs=np.zeros(1), large_probs=(np.zeros(1),)))

    name = f"{__name__}.{Quick.__qualname__}"
    backends.register(name, request_type=backends.SCORING_REQUEST_TYPE)(score)
    requests = waiting_docs()
    answers = backends.token_scores(Quick(), requests)
    assert numbers == list(range(15)), "one call was enough"
    assert [tuple(answer) for answer in answers] == [tuple(pair) for pair in Counting().loglikelihood(requests)]


def test_ranks_make_equally_many_calls() -> None:
    """Also one whose answers are all known: others may need its help."""
    lm = Counting()
    lm._world_size = 2
    backends.token_scores(lm, waiting_docs(0))
    assert len(lm.calls) == 0  # the fallback asks nothing of nobody
    calls: list[int] = []

    class Ranked(Counting):
        pass

    name = f"{__name__}.{Ranked.__qualname__}"

    def score(lm: Any, requests: Any, deliver: Any) -> None:
        calls.append(len(requests))
        for number, pair in enumerate(lm.loglikelihood(requests)):
            deliver(number, TokenScores(pair))

    backends.register(name, request_type=backends.SCORING_REQUEST_TYPE)(score)
    lm = Ranked()
    lm._world_size = 2
    backends.token_scores(lm, waiting_docs(1))
    assert calls == [3, 2]
    calls.clear()
    backends.token_scores(lm, [request for request in waiting_docs(1) if request.idx < 3])
    assert calls == [3, 0], "requests of other ranks may wait"


def test_only_a_backend_without_a_method_of_its_own_lets_requests_wait() -> None:
    class Own(Counting):
        def token_scores_v1(self, requests: Any) -> Any:
            return []

    name = backends.SCORING_REQUEST_TYPE
    assert backends.can_wait(Counting(), name)
    assert not backends.can_wait(Own(), name)
    assert not backends.can_wait(None, name)
