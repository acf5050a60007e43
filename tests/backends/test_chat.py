"""Choices read from the first token of a chat server's answer."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import Behaviour, chat_prompt, chat_url, completions_server
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends import TokenScores
from lm_eval_calibration.backends.api.first_token import choice_scores, is_listed, reason_unreadable, unassigned_mass
from lm_eval_calibration.errors import UserError

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalChatCompletion

scoring.install()

slow = partial(pytest.param, marks=pytest.mark.slow)

pytestmark = pytest.mark.usefixtures("no_waits")

QUESTIONS = ["Which letter?", "zz", "one two three", "x" * 30]
CHOICES = ["A", "B", "C", "D"]


def logs(**probs: float) -> list[tuple[str, float]]:
    return [(token.replace("_", " "), math.log(p)) for token, p in probs.items()]


def read(top: list[tuple[str, float]], choices: list[str] = CHOICES) -> list[float]:
    return [math.exp(answer[0]) for answer in choice_scores(top, choices, {})]


def test_spellings_of_a_choice_add_up() -> None:
    top = logs(A=0.5, _A=0.2, B=0.1, C=0.05, a=0.04, AB=0.03, D=0.02)
    assert read(top) == pytest.approx([0.7, 0.1, 0.05, 0.02])
    assert [a[1] for a in choice_scores(top, CHOICES, {})] == [True, False, False, False]
    assert read(logs(Yes=0.5, _yes=0.2, NO=0.1, y=0.1), ["yes", "no"]) == pytest.approx([0.7, 0.1])
    assert unassigned_mass(choice_scores(top, CHOICES, {})) == pytest.approx(0.13)


def test_a_choice_that_is_not_listed_has_a_bound() -> None:
    """The second-least of the listed tokens, or what is left of 1: no token that is not listed can be more probable."""
    scores = choice_scores(logs(A=0.6, B=0.2, x=0.04, y=0.01), CHOICES, {"k": 4})
    assert [is_listed(answer) for answer in scores] == [True, True, False, False]
    assert math.exp(scores[2][0]) == pytest.approx(0.04)
    assert [a.certificate["choices"] for a in scores] == ["exact", "exact", "bounded", "bounded"]
    assert unassigned_mass(scores) == pytest.approx(0.2)
    assert read(logs(A=0.9, B=0.08, x=0.015, y=0.004))[3] == pytest.approx(0.001, abs=2e-6)  # all that is left
    assert read(logs(A=1.0))[1] == pytest.approx(1e-6, rel=1e-3)  # float32 sums are no exact 1
    assert read([("A", 0.0), ("B", -9999.0), ("x", -9999.0)])[1] > 0


def test_the_drawn_token_may_stand_among_the_listed() -> None:
    """It replaces the last: of a, b, c, d the server lists z, a, b, c, and d is not less probable than z."""
    probs = {"a": 0.4, "b": 0.3, "c": 0.15, "D": 0.1, "z": 1e-9}
    listed = {name: probs[name] for name in ("z", "a", "b", "c")}
    assert read(logs(**listed), ["D"])[0] >= probs["D"]


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        (["A", " B"], None),
        (["yes", "no", "maybe"], None),
        (["0", "10"], None),
        (["A", "two words"], "choice 'two words' is no single letter, number or word"),
        (["A", "B."], "choice 'B.' is no"),
        (["A", ""], "choice '' is no"),
        (["Yes", "yes"], "choices 'Yes' and 'yes' read alike"),
        (["a", "A"], None),
        (["A", "A"], "read alike"),
    ],
)
def test_choices_that_can_be_read_from_one_token(choices: list[str], problem: str | None) -> None:
    found = reason_unreadable(choices)
    assert found is None if problem is None else problem in (found or "")


def make_requests(lm: Any, choices: list[str] = CHOICES) -> list[Instance]:
    return [
        Instance(
            "x", {}, (lm.apply_chat_template([{"role": "user", "content": question}]), choice), i, ("letters", n, 1)
        )
        for n, question in enumerate(QUESTIONS)
        for i, choice in enumerate(choices)
    ]


def chat(url: str, **options: Any) -> Any:
    return LocalChatCompletion(base_url=chat_url(url), model="tiny", **options)


def ask(lm: Any, requests: list[Instance]) -> list[TokenScores]:
    found: list[TokenScores] = getattr(lm, scoring.SCORING_REQUEST_TYPE)(requests)
    return found


@pytest.mark.parametrize(("concurrent", "drawn"), [slow(1, None), (4, 7)])
def test_a_server_s_first_token(gpt2_lm: Any, concurrent: int, drawn: int | None) -> None:
    behaviour = Behaviour(drawn=drawn)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = chat(url, num_concurrent=concurrent)
        found = ask(lm, make_requests(lm))
    n_read = 0
    for n, question in enumerate(QUESTIONS):
        prompt = chat_prompt([{"role": "user", "content": question}])
        with torch.no_grad():
            row = gpt2_lm.model(torch.tensor([gpt2_lm.tok_encode(prompt)])).logits[0, -1].double().log_softmax(-1)
        for choice, answer in zip(CHOICES, found[n * 4 : n * 4 + 4], strict=True):
            expected = float(row[gpt2_lm.tok_encode(choice)[0]])
            n_read += is_listed(answer)
            if is_listed(answer):
                assert answer[0] == pytest.approx(expected, abs=1e-6)
            else:
                assert answer[0] >= expected
            assert not answer.has_distributions
            assert answer.certificate["k"] == 20
    assert 0 < n_read < len(found)
    received = behaviour.received[1:]
    assert len(received) == len(QUESTIONS)  # once for all choices
    assert all(a["top_logprobs"] == 20 and a["logprobs"] is True and "stop" not in a for a in received)
    assert all((a["max_tokens"], a["temperature"]) == (1, 1.0) for a in received)


def test_a_server_may_accept_fewer(gpt2_lm: Any) -> None:
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(most=5)) as url:
        lm = chat(url)
        assert {answer.certificate["k"] for answer in ask(lm, make_requests(lm))} == {5}
    behaviour = Behaviour(most=0)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = chat(url)
        with pytest.raises(UserError, match=r"gives no log-probabilities of its answers .*: 400 .*not granted"):
            ask(lm, make_requests(lm))
    assert len(behaviour.received) == 3


@pytest.mark.parametrize("concurrent", [slow(1), 2])
def test_faults_are_tried_again(gpt2_lm: Any, concurrent: int) -> None:
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour()) as url:
        lm = chat(url, num_concurrent=concurrent)
        expected = ask(lm, make_requests(lm))
        assert ask(lm, make_requests(lm)) == expected
    behaviour = Behaviour(faults=["500", "cut", "", "few", "nan", "", "none"])
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = chat(url, num_concurrent=concurrent, max_retries=6)
        assert ask(lm, make_requests(lm)) == expected
    assert not behaviour.faults


@pytest.mark.parametrize("fault", ["few", slow("nan"), slow("none")])
def test_a_lasting_fault_is_an_error(gpt2_lm: Any, fault: str) -> None:
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(faults=[fault] * 9)) as url:
        lm = chat(url)
        with pytest.raises(ValueError, match=r"no log-probabilities of its first token|is nan"):
            ask(lm, make_requests(lm))


def test_what_a_chat_server_can_t_answer_is_refused_before_any_request(gpt2_lm: Any) -> None:
    behaviour = Behaviour()
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = chat(url)
        requests = make_requests(lm)
        requests[6].arguments = (requests[6].args[0], "all of these")
        with pytest.raises(UserError, match=r"^letters doc 1: choice 'all of these' is no single letter"):
            ask(lm, requests)
        requests[6].arguments = ("plain text", "C")
        with pytest.raises(UserError, match=r"^letters doc 1: .* add --apply_chat_template"):
            ask(lm, requests)
    assert not behaviour.received


def test_use_cache_keeps_what_was_read(gpt2_lm: Any, tmp_path: Path) -> None:
    behaviour = Behaviour(faults=["", "", "nan", "nan", "nan"])  # as often as the harness tries
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = CachingLM(chat(url), str(tmp_path / "cache.db"))
        with pytest.raises(ValueError, match="is nan"):
            ask(lm, make_requests(lm))
        n_received = len(behaviour.received)
        found = ask(lm, make_requests(lm))
        assert len(behaviour.received) == n_received + 1 + len(QUESTIONS) - 2  # but for a look at what is granted
        assert ask(lm, make_requests(lm)) == found
        assert len(behaviour.received) == n_received + 1 + len(QUESTIONS) - 2
