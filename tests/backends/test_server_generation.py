"""What servers write, and how probable they held each token of it: against hf on the same weights."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completions_server import Behaviour, chat_prompt, chat_url, completions_server
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from tiny import generation_requests, make_gpt2

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, GeneratedText
from lm_eval_calibration.backends.api.written import written_text

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

scoring.install()

slow = partial(pytest.param, marks=pytest.mark.slow)

pytestmark = pytest.mark.usefixtures("no_waits")

PROMPTS = ["a", "Which letter comes after b?", "one two three four five six", "zz\n", "Answer:", "x" * 40]
GREEDY = {"until": ["e", "Z"], "max_gen_toks": 12, "do_sample": False}


@pytest.fixture(scope="module")
def lm(byte_tokenizer: Any) -> HFLM:
    """Writes one-byte characters only: random bytes are no text."""
    model = make_gpt2(byte_tokenizer)
    letters = [len(byte_tokenizer.decode([i])) == 1 and byte_tokenizer.decode([i]).isascii() for i in range(258)]
    with torch.no_grad():
        model.lm_head.weight[~torch.tensor(letters)] = 0
    return HFLM(pretrained=model, tokenizer=byte_tokenizer, backend="causal", device="cpu", batch_size=2)


def make_requests(contexts: list[Any] = PROMPTS, **settings: Any) -> list[Instance]:
    return generation_requests(contexts, GREEDY | settings)


def completions(url: str, tokenizer_path: str, **options: Any) -> LocalCompletionsAPI:
    known = {"tokenizer": tokenizer_path, "tokenizer_backend": "huggingface", "batch_size": 2, "max_length": 257}
    return LocalCompletionsAPI(base_url=url, model="tiny", **{**known, **options})


def chats(lm: Any) -> list[Any]:
    return [lm.apply_chat_template([{"role": "user", "content": prompt}]) for prompt in PROMPTS]


def ask(lm: Any, requests: list[Instance]) -> list[GeneratedText]:
    found: list[GeneratedText] = getattr(lm, GENERATION_REQUEST_TYPE)(requests)
    return found


def assert_same(found: list[GeneratedText], expected: list[GeneratedText]) -> None:
    assert list(map(str, found)) == list(map(str, expected))
    assert len(set(expected)) > 3
    for ours, hf in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.token_log_probs, hf.token_log_probs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("concurrent", [slow(1), 4])
def test_a_completions_server_s_answers(lm: HFLM, tokenizer_path: str, concurrent: int) -> None:
    expected = ask(lm, make_requests())
    assert any(len(text) < 12 for text in expected)  # some stop early
    with completions_server(lm.model, lm.tokenizer, Behaviour()) as url:
        server = completions(url, tokenizer_path, num_concurrent=concurrent)
        stock = server.generate_until(make_requests())
        found = ask(server, make_requests())
    assert list(map(str, found)) == stock
    assert_same(found, expected)
    assert found[0].certificate["token_probabilities"].startswith("as the server gives them")
    assert found[0].certificate["sampled"] is False


@pytest.mark.parametrize("concurrent", [1, slow(4)])
def test_a_chat_server_s_answers(lm: HFLM, concurrent: int) -> None:
    prompts = [chat_prompt([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    expected = ask(lm, make_requests(prompts))
    with completions_server(lm.model, lm.tokenizer, Behaviour()) as url:
        server = LocalChatCompletion(base_url=chat_url(url), model="tiny", num_concurrent=concurrent)
        stock = server.generate_until(make_requests(chats(server)))
        found = ask(server, make_requests(chats(server)))
    assert list(map(str, found)) == stock
    assert_same(found, expected)


def test_a_server_that_gives_none_gives_texts(
    lm: HFLM, tokenizer_path: str, tmp_path: Path, harness_log: pytest.LogCaptureFixture
) -> None:
    behaviour = Behaviour(most=0)
    with completions_server(lm.model, lm.tokenizer, behaviour) as url:
        server = CachingLM(completions(url, tokenizer_path), str(tmp_path / "cache.db"))
        found = ask(server, make_requests())
        n_received = len(behaviour.received)
        assert ask(server, make_requests()) == found
        assert len(behaviour.received) == n_received
    assert list(map(str, found)) == list(map(str, ask(lm, make_requests())))
    assert not any(text.has_probabilities for text in found)
    assert "gives no probabilities of the tokens that it writes (400" in harness_log.text


def test_probabilities_that_the_temperature_made_1_are_none(
    lm: HFLM, tokenizer_path: str, harness_log: pytest.LogCaptureFixture
) -> None:
    with completions_server(lm.model, lm.tokenizer, Behaviour(scales=True)) as url:
        found = ask(completions(url, tokenizer_path), make_requests())
    assert not any(text.has_probabilities for text in found)
    assert "it gives every token probability 1" in harness_log.text


@pytest.mark.parametrize(("is_chat", "concurrent"), [(False, 2), slow(True, 1)])
def test_faults_are_tried_again(lm: HFLM, tokenizer_path: str, is_chat: bool, concurrent: int) -> None:
    def answers(faults: list[str]) -> list[GeneratedText]:
        options = {"num_concurrent": concurrent, "max_retries": 6}
        with completions_server(lm.model, lm.tokenizer, Behaviour(faults=faults)) as url:
            if is_chat:
                server: Any = LocalChatCompletion(base_url=chat_url(url), model="tiny", **options)
                return ask(server, make_requests(chats(server)))
            return ask(completions(url, tokenizer_path, **options), make_requests())

    expected = answers([])
    assert_same(answers(["500", "cut", "", "nan", "none", *(["few"] if not is_chat else [])]), expected)
    if is_chat:  # the text does not begin with what is left of the tokens
        assert [text.token_log_probs is None for text in answers(["few"])].count(True) == 1


def test_a_resumed_run_sends_no_request_twice(lm: HFLM, tokenizer_path: str, tmp_path: Path) -> None:
    expected = ask(lm, make_requests())
    behaviour = Behaviour(faults=["", "", "nan", "nan", "nan"])  # as often as the harness tries
    with completions_server(lm.model, lm.tokenizer, behaviour) as url:
        server = CachingLM(completions(url, tokenizer_path, batch_size=1), str(tmp_path / "cache.db"))
        with pytest.raises(ValueError, match=r"log-probability of token .* is nan"):
            ask(server, make_requests())
        n_received = len(behaviour.received)
        assert_same(ask(server, make_requests()), expected)
    assert n_received == 1 + 2 + 3
    assert len(behaviour.received) == n_received + 1 + 4


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"text": "a", "logprobs": None}, "no log-probabilities of its tokens"),
        ({"text": "a"}, "no log-probabilities of its tokens"),
        ({"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0]}}, "2 tokens and 1 log-prob"),
        ({"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [None]}}, "token 0, 'a' is None"),
        ({"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-9999.0]}}, "-9999.0, which stands for none"),
        ({"message": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}, "token 0, 'a' is None"),
        ({"message": {"content": "a"}, "logprobs": {"content": []}}, "no log-probabilities of its tokens"),
    ],
)
def test_missing_log_probabilities_are_an_error(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        written_text(choice, "a")


def test_an_empty_answer_has_no_tokens() -> None:
    assert written_text({"text": "", "logprobs": None}, "").token_log_probs.tolist() == []
    assert written_text({"message": {"content": ""}, "logprobs": {"content": []}}, "").token_log_probs.tolist() == []
