"""Generated tokens: the text of a stock run, and probabilities that are the model's own."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CachingLM
from lm_eval.models.huggingface import HFLM
from tiny import generation_requests, make_gpt2

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE
from lm_eval_calibration.backends.hf import generation as hf_generation
from lm_eval_calibration.backends.tokens import span_of_ids, span_of_pieces

slow = partial(pytest.param, marks=pytest.mark.slow)

PROMPTS = ["a", "Which letter comes after b?", "one two three four five six", "zz\n", "Answer:", "x" * 40]
GREEDY = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}


def make_requests(prompts: Sequence[str] = PROMPTS, kwargs: Any = None) -> list[Instance]:
    return generation_requests(prompts, GREEDY if kwargs is None else kwargs)


def emitted_tokens(lm: HFLM, requests: Sequence[Instance], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], Any]:
    """Our answers, and of each prompt the tokens that the model's own ``generate`` returned."""
    seen: dict[str, list[list[int]]] = {}
    generate = lm.model.generate

    def watched(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        sequences = generate(input_ids=input_ids, **options)
        for context, row in zip(input_ids.tolist(), sequences.tolist(), strict=True):
            start = len(context) if lm.backend == "causal" else 1
            seen.setdefault(lm.tok_decode(context), []).append(row[start:])
        return sequences

    with monkeypatch.context() as patch:
        patch.setattr(lm.model, "generate", watched)
        found = scoring.generated_texts(lm, requests)
    return found, seen


def rescored(lm: HFLM, prompt: str, tokens: Sequence[int]) -> np.ndarray:
    """Log-probabilities of the tokens after the prompt, by one plain call of the model."""
    context = lm.tok_encode(prompt)
    with torch.no_grad():
        if lm.backend == "causal":
            logits = lm.model(torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1]
        else:
            decoder = torch.tensor([[0, *tokens]])
            logits = lm.model(input_ids=torch.tensor([context]), decoder_input_ids=decoder).logits[0, :-1]
    return logits.double().log_softmax(-1)[range(len(tokens)), list(tokens)].numpy()


def assert_rescored(lm: HFLM, requests: Sequence[Instance], found: Sequence[Any], seen: Any) -> None:
    """Each text's log-probabilities are those of its tokens, and their sum that of all of them."""
    for request, text in zip(requests, found, strict=True):
        n, rows = len(text.token_log_probs), seen[request.args[0]]
        row = next(row for row in rows if lm.tok_decode(row).startswith(text))
        assert lm.tok_decode(row[:n]).startswith(text)
        expected = rescored(lm, request.args[0], row[:n])
        np.testing.assert_allclose(text.token_log_probs, expected, rtol=0, atol=1e-4)
        assert np.exp(text.token_log_probs.sum()) == pytest.approx(np.exp(expected.sum()), abs=1e-4)


def frequent_stops(lm: HFLM) -> list[str]:
    """Stop strings that really come: letters from the middle of what the model writes."""
    texts = lm.generate_until(make_requests(kwargs={"until": [], "max_gen_toks": 12}))
    return [text[len(text) // 2] for text in texts if text][:3]


@pytest.mark.parametrize(("batch_size", "stops"), [slow(1, False), slow(1, True), slow(4, False), (4, True)])
def test_text_is_stock_s_and_probabilities_are_rescored(
    byte_tokenizer: Any, batch_size: int, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_gpt2(byte_tokenizer)
    lm = HFLM(pretrained=model, tokenizer=byte_tokenizer, backend="causal", device="cpu", batch_size=batch_size)
    kwargs = {**GREEDY, "until": frequent_stops(lm) if stops else ["\n"]}
    stock = lm.generate_until(make_requests(kwargs=kwargs))
    requests = make_requests(kwargs=kwargs)
    found, seen = emitted_tokens(lm, requests, monkeypatch)
    assert [str(text) for text in found] == stock
    assert_rescored(lm, requests, found, seen)
    assert any(len(text.token_log_probs) < 8 for text in found) or not stops  # some stop early
    certificate = found[0].certificate
    assert certificate["token_probabilities"] == "exact: the model's own at temperature 1"
    assert (certificate["sampled"], certificate["dtype"], certificate["backend"]) == (False, "float32", "HFLM")


def test_sampled_tokens_have_the_model_s_own_probability(gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 0.3, "top_k": 5}
    kwargs |= {"repetition_penalty": 1.9}  # a processor: transformers shows it even to logits processors of ours
    requests = make_requests(["Which letter?"] * 5, kwargs)
    torch.manual_seed(0)
    stock = gpt2_lm.generate_until(make_requests(["Which letter?"] * 5, kwargs))
    torch.manual_seed(0)
    found, seen = emitted_tokens(gpt2_lm, requests, monkeypatch)
    assert list(map(str, found)) == stock
    assert len(set(found)) > 1
    assert_rescored(gpt2_lm, requests, found, seen)
    assert all(text.certificate["sampled"] for text in found)


@pytest.mark.parametrize("as_id", [False, True])
def test_a_thought_is_taken_away_as_stock_does(
    byte_tokenizer: Any, as_id: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(think_end: Any) -> HFLM:
        options = {"tokenizer": byte_tokenizer, "backend": "causal", "device": "cpu", "batch_size": 3}
        return HFLM(pretrained=make_gpt2(byte_tokenizer), think_end_token=think_end, **options)

    settings = {"until": [], "max_gen_toks": 12, "do_sample": False}
    texts = make(None).generate_until(make_requests(kwargs=settings))
    end = next(c for text in texts for c in text[2:10] if c.isascii() and c.isprintable())  # one that it really writes
    lm = make(byte_tokenizer.encode(end)[0] if as_id else end)
    stock = lm.generate_until(make_requests(kwargs=settings))
    requests = make_requests(kwargs=settings)
    for request in requests:
        request.wants_top_k = True
    found, seen = emitted_tokens(lm, requests, monkeypatch)
    assert list(map(str, found)) == stock
    assert any(text.thought_log_probs is not None for text in found)
    for request, text in zip(requests, found, strict=True):
        (row,) = seen[request.args[0]]
        thought = np.zeros(0) if text.thought_log_probs is None else text.thought_log_probs
        both = np.concatenate([thought, text.token_log_probs])
        np.testing.assert_allclose(both, rescored(lm, request.args[0], row[: len(both)]), rtol=0, atol=1e-4)
        assert text.thought == lm.tok_decode(row[: len(thought)])
        assert len(text.mean_top_k) == len(both)
        assert text.token_ends is None or text.token_ends[-1:].tolist() == [len(text)] * bool(text)


def test_confidence_along_the_chain_is_that_of_the_most_probable_tokens(
    gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests()
    for request in requests:
        request.wants_top_k = True
    found, seen = emitted_tokens(gpt2_lm, requests, monkeypatch)
    for request, text in zip(requests, found, strict=True):
        context = gpt2_lm.tok_encode(request.args[0])
        tokens = seen[request.args[0]][0][: len(text.token_log_probs)]
        with torch.no_grad():
            logits = gpt2_lm.model(torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1]
        top = np.sort(logits.double().log_softmax(-1).numpy(), axis=-1)[:, -scoring.TOP_K :]
        np.testing.assert_allclose(text.mean_top_k, -top.mean(axis=-1), rtol=0, atol=1e-4)


def test_seq2seq(t5_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = t5_lm.generate_until(make_requests())
    requests = make_requests()
    found, seen = emitted_tokens(t5_lm, requests, monkeypatch)
    assert list(map(str, found)) == stock
    assert_rescored(t5_lm, requests, found, seen)


def test_an_empty_text_has_no_tokens(gpt2_lm: HFLM) -> None:
    first = [text[:1] for text in gpt2_lm.generate_until(make_requests())]
    found = scoring.generated_texts(gpt2_lm, make_requests(kwargs={**GREEDY, "until": first}))
    for text in found:
        assert text == ""
        assert text.token_log_probs.shape == (0,)
        assert text.has_probabilities


def test_beams_give_the_text_only(gpt2_lm: HFLM, harness_log: pytest.LogCaptureFixture) -> None:
    kwargs = {**GREEDY, "num_beams": 3}
    stock = gpt2_lm.generate_until(make_requests(kwargs=kwargs))
    found = scoring.generated_texts(gpt2_lm, make_requests(kwargs=kwargs))
    assert list(map(str, found)) == stock
    assert all(text.token_log_probs is None for text in found)
    assert "not seen step by step, as with beams" in harness_log.text


def test_requests_of_different_settings_keep_their_order(gpt2_lm: HFLM) -> None:
    requests = make_requests()
    for i, request in enumerate(requests):
        request.arguments[1]["max_gen_toks"] = 3 + i % 3
    stock = gpt2_lm.generate_until(copy.deepcopy(requests))
    assert list(map(str, scoring.generated_texts(gpt2_lm, requests))) == stock
    assert gpt2_lm._model_generate.__func__ is HFLM._model_generate
    assert requests[0].args[0] == PROMPTS[0]


def test_no_step_s_logits_outlive_the_next(gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    step = hf_generation._Recorder._step

    def counting(self: Any, *args: Any) -> None:
        step(self, *args)
        held.append(sum(t.numel() for t in (self._held, *self._tokens, *self._log_probs)))

    monkeypatch.setattr(hf_generation._Recorder, "_step", counting)
    scoring.generated_texts(gpt2_lm, make_requests(["a"], {"until": [], "max_gen_toks": 20}))
    vocab_size = gpt2_lm.model.config.vocab_size
    assert held == [vocab_size + 2 * i for i in range(len(held))]
    assert len(held) > 5


class Recites(LM):
    """Returns texts only."""

    asked = 0

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        type(self).asked += len(requests)
        return [request.args[0][::-1] for request in requests]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def test_other_backends_give_the_text_and_no_confidence(harness_log: pytest.LogCaptureFixture) -> None:
    found = scoring.generated_texts(Recites(), make_requests(["ab", "c"]))
    assert list(map(str, found)) == ["ba", "c"]
    assert all(text.token_log_probs is None and not text.has_probabilities for text in found)
    assert harness_log.text.count("Recites gives no probabilities of the tokens that it writes") == 1


class OwnGeneration(HFLM):
    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        return ["own"] * len(requests)


def test_a_backend_with_a_generation_of_its_own_keeps_it(
    byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture
) -> None:
    lm = OwnGeneration(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, backend="causal", device="cpu")
    assert list(map(str, scoring.generated_texts(lm, make_requests(["a"])))) == ["own"]
    assert "it has a generate_until of its own" in harness_log.text


def test_use_cache_is_honoured(byte_tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, backend="causal", device="cpu")
    scoring.install()
    cached = CachingLM(lm, str(tmp_path / "cache.db"))
    first = getattr(cached, GENERATION_REQUEST_TYPE)(make_requests())
    calls = []
    generate = lm.model.generate
    monkeypatch.setattr(lm.model, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    again = getattr(cached, GENERATION_REQUEST_TYPE)(make_requests())
    assert not calls
    assert list(map(str, again)) == list(map(str, first))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.token_log_probs, other.token_log_probs)
    sampled = make_requests(["a"] * 2, {"do_sample": True, "temperature": 1.0, "max_gen_toks": 4})
    getattr(cached, GENERATION_REQUEST_TYPE)(sampled)
    getattr(cached, GENERATION_REQUEST_TYPE)(sampled)
    assert len(calls) == 4  # one at a time, and never from the cache


WORDS = ("<eos>", "one", " two", "\n", " three\nfour", "<think>", "</think>")


def spell(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are whole words; 0 ends a text."""
    return "".join(WORDS[token] for token in tokens if token)


@pytest.mark.parametrize(
    ("tokens", "text", "think", "expected"),
    [
        ([1, 2, 0, 0], "one two", None, (0, 2)),  # the end token and padding don't count
        ([1, 2, 3, 1, 1], "one two", None, (0, 2)),  # nor does the stop string, nor what came after it
        ([1, 4, 1], "one three", None, (0, 2)),  # a token that the stop string cuts in two counts
        ([3, 1], "", None, (0, 0)),  # first token a stop
        ([0, 0], "", None, (0, 0)),
        ([5, 2, 6, 1, 2, 0], "one two", 6, (3, 5)),  # what was thought before does not count
        ([5, 2, 6, 1, 2, 3], "one two", "</think>", (3, 5)),
        ([5, 2, 6, 3, 1, 2], "one two", "</think>", (4, 6)),  # nor space that is stripped after it
        ([1, 2], "two one", None, None),
    ],
)
def test_which_tokens_count(tokens: list[int], text: str, think: Any, expected: Any) -> None:
    span = span_of_ids(tokens, text, spell, [0], think)
    assert (span and (span.start, span.stop)) == expected


def test_a_cut_character_counts_with_all_its_bytes(gpt2_lm: HFLM) -> None:
    tokens = gpt2_lm.tok_encode("aé€")[:-1]  # the last character lacks a byte
    text = gpt2_lm.tok_decode(tokens)
    assert span_of_ids(tokens, text, gpt2_lm.tok_decode, [], None) == slice(0, len(tokens))
    assert span_of_ids(gpt2_lm.tok_encode("aé€\nb"), "aé€", gpt2_lm.tok_decode, [], None) == slice(0, 6)


@pytest.mark.parametrize(
    ("pieces", "content", "text", "expected"),
    [
        (["one", " two", "<eos>"], "one two", "one two", (0, 2)),
        (["one", " two", "\n", "more"], "one two", "one two", (0, 2)),  # the stop string came, the batch went on
        (["one", " three\nfour"], "one three", "one three", (0, 2)),  # the stop string cuts a token in two
        (["", "", "é", "", "€", "\n"], "é€", "é€", (0, 5)),  # a character of several tokens
        (["thus", "</think>", " ", "é"], "thus</think> é", "é", (3, 4)),  # the harness took the thoughts away
        (["so", "", "é", " is"], "soé is", "é is", (1, 4)),
        (["a", " b", "</think>", "yes", "<eos>"], "yes", "yes", (3, 4)),  # the server took them away
        (["yes", " ", "so", "</think>", "so"], "so", "so", None),  # it could be either
        (["two"], "one", "one", None),
        (["one"], "one two", "one two", None),  # tokens are missing
        (["\n"], "", "", (0, 0)),
        ([], "", "", (0, 0)),
    ],
)
def test_which_of_a_server_s_tokens_count(pieces: list[str], content: str, text: str, expected: Any) -> None:
    span = span_of_pieces(pieces, content, text)
    assert (span and (span.start, span.stop)) == expected
