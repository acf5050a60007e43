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
from lm_eval_calibration.errors import UserError

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


def wanting_means(requests: list[Instance]) -> list[Instance]:
    for request in requests:
        request.wants_top_k = True
    return requests


@pytest.mark.parametrize("most", [20, slow(7)])
@pytest.mark.parametrize("is_chat", [False, True])
def test_means_of_the_most_probable_tokens(
    lm: HFLM, tokenizer_path: str, is_chat: bool, most: int, harness_log: pytest.LogCaptureFixture
) -> None:
    """By tokens' ids, since many bytes read alike."""
    prompts = [chat_prompt([{"role": "user", "content": p}]) for p in PROMPTS] if is_chat else PROMPTS
    k = 20 if most == 20 else 5
    expected = scoring.generated_texts(lm, make_requests(prompts))
    with completions_server(lm.model, lm.tokenizer, Behaviour(most=most)) as url:
        server: Any = (
            LocalChatCompletion(base_url=chat_url(url), model="tiny") if is_chat else completions(url, tokenizer_path)
        )
        found = ask(server, wanting_means(make_requests(chats(server) if is_chat else PROMPTS)))
    assert_same(found, expected)
    for prompt, text in zip(prompts, found, strict=True):
        ids = lm.tok_encode(text)
        with torch.no_grad():
            rows = lm.model(torch.tensor([[*lm.tok_encode(prompt), *ids]])).logits[0, -len(ids) - 1 : -1]
        top = np.sort(rows.double().log_softmax(-1).numpy(), axis=-1)[:, -k:]
        np.testing.assert_allclose(text.mean_top_k, -top.mean(axis=-1), rtol=0, atol=1e-5)
        assert text.top_k == k
        assert text.listed == ()
    assert ("gives the 5 most probable tokens at each position" in harness_log.text) == (k == 5)


def test_a_server_without_most_probable_tokens_is_refused_where_they_are_needed(lm: HFLM, tokenizer_path: str) -> None:
    with (
        completions_server(lm.model, lm.tokenizer, Behaviour(most=1)) as url,
        pytest.raises(UserError, match=r"does not give the most probable tokens .*not granted.*leave `chain` out"),
    ):
        ask(completions(url, tokenizer_path), wanting_means(make_requests()))


@pytest.mark.parametrize("concurrent", [1, 4])
def test_the_most_probable_tokens_at_one_position(lm: HFLM, tmp_path: Path, concurrent: int) -> None:
    """They are kept of the position that is wanted, also in the cache, and no request is sent for them twice."""

    def requests(server: Any, position: int) -> list[Instance]:
        made = make_requests(chats(server))
        for request in made:
            request.option_position = lambda text: position if len(text) > position else None
        return made

    behaviour = Behaviour()
    with completions_server(lm.model, lm.tokenizer, behaviour) as url:
        chat = LocalChatCompletion(base_url=chat_url(url), model="tiny", num_concurrent=concurrent)
        server = CachingLM(chat, str(tmp_path / "cache.db"))
        found = ask(server, requests(server, 2))
        n_received = len(behaviour.received)
        assert [text.top_tokens for text in ask(server, requests(server, 2))] == [text.top_tokens for text in found]
        assert ask(server, make_requests(chats(server))) == found
        assert len(behaviour.received) == n_received
        others = ask(server, requests(server, 1))  # another position
        assert len(behaviour.received) > n_received
    assert {text.top_tokens.position for text in others if text.top_tokens} == {1}
    assert any(text.top_tokens is None for text in found) == any(len(text) <= 2 for text in found)
    for prompt, text in zip(PROMPTS, found, strict=True):
        if text.top_tokens is None:
            continue
        ids = lm.tok_encode(chat_prompt([{"role": "user", "content": prompt}]) + text[:2])
        with torch.no_grad():
            row = lm.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        expected = [(lm.tokenizer.decode([int(t)]), float(row[t])) for t in row.topk(20).indices]
        position, tokens = text.top_tokens
        assert position == 2
        np.testing.assert_allclose(
            sorted(value for _, value in tokens), sorted(value for _, value in expected), rtol=0, atol=1e-5
        )
        assert {token for token, _ in tokens} == {token for token, _ in expected}


def test_most_probable_tokens_that_are_no_probabilities_are_none() -> None:
    def entry(*log_probs: float) -> dict[str, Any]:
        tops = [{"token": str(i), "logprob": value} for i, value in enumerate(log_probs)]
        return {"token": "a", "logprob": -1.0, "top_logprobs": tops}

    choice = {"message": {"content": "aaa"}, "logprobs": {"content": [entry(-1.0, -2.0), entry(0, 0), entry(-1, 0.5)]}}
    text = written_text(choice, "aaa", 2)
    assert [len(tokens) for tokens in text.listed] == [2, 0, 0]
    assert text.mean_top_k is None
    assert text.keeping_top_tokens(1).top_tokens == (1, ())
    assert text.listed == ()


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
