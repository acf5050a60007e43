"""What vLLM and SGLang write: the harness's own classes over an engine that gives what the real one once gave.

SGLang's answers have their documented form, with vLLM's numbers.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lm_eval.api.instance import Instance
from tiny import generation_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.errors import UserError

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

RECORDED = json.loads((Path(__file__).parent / "recorded_vllm_texts.json").read_text(encoding="utf-8"))["outputs"]
SETTINGS = {"until": ["\n\n", ". "], "max_gen_toks": 16, "do_sample": False}


class Engine:
    """Gives the recorded answers: log-probabilities only where they were asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self.by_prompt = {tuple(tokenizer(r["prompt"])["input_ids"]): r for r in RECORDED}
        self.spoil = lambda log_probs: log_probs

    def answer_of(self, prompt: Any) -> tuple[dict[str, Any], list[Any]]:
        recorded = self.by_prompt[tuple(prompt)]
        return recorded, self.spoil(list(zip(recorded["logprobs"], recorded["token_ids"], strict=True)))


class VLLMEngine(Engine):
    def generate(self, prompts: Any, sampling_params: Any, **_: Any) -> list[Any]:
        outputs = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            recorded, pairs = self.answer_of(prompt["prompt_token_ids"])
            # Beside the tokens, others of descending probability; one that isn't among these is there in addition.
            others = {-i: SimpleNamespace(logprob=-float(i)) for i in range(1, (params.logprobs or 0) + 1)}
            given = None if params.logprobs is None else [{t: SimpleNamespace(logprob=v), **others} for v, t in pairs]
            text = SimpleNamespace(text=recorded["text"], token_ids=recorded["token_ids"], logprobs=given)
            outputs.append(SimpleNamespace(outputs=[text]))
        return outputs


class SGLangEngine(Engine):
    def generate(self, input_ids: Any, sampling_params: Any, return_logprob: bool, **_: Any) -> list[Any]:
        answers = [self.answer_of(prompt) for prompt in input_ids]
        return [
            {
                "text": recorded["text"],
                "meta_info": {"output_token_logprobs": [(*pair, None) for pair in pairs]} if return_logprob else {},
            }
            for recorded, pairs in answers
        ]


@pytest.fixture
def lm(engine_lm: Any, smollm2_lm: Any) -> Any:
    return engine_lm(smollm2_lm.tokenizer, {"VLLM": VLLMEngine, "SGLangLM": SGLangEngine})


def make_requests(**settings: Any) -> list[Instance]:
    return generation_requests([recorded["prompt"] for recorded in RECORDED], SETTINGS | settings)


@pytest.fixture(scope="module")
def expected(smollm2_lm: Any) -> list[Any]:
    """What the hf backend writes."""
    return scoring.generated_texts(smollm2_lm, make_requests())


def test_texts_are_the_engine_s_and_probabilities_hf_s(lm: Any, expected: list[Any]) -> None:
    stock = lm.generate_until(make_requests(), disable_tqdm=True)
    found = scoring.generated_texts(lm, make_requests())
    assert list(map(str, found)) == stock == list(map(str, expected))
    assert {len(text) == 0 for text in found} == {True, False}
    for ours, hf in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.token_log_probs, hf.token_log_probs, rtol=0, atol=1e-3)
        assert ours.certificate["token_probabilities"] == hf.certificate["token_probabilities"]
        assert ours.certificate["vocabulary"] == hf.certificate["vocabulary"]
        assert ours.certificate["sampled"] is False


def test_sampled_answers(lm: Any) -> None:
    """vLLM's log-probabilities are of before the temperature, SGLang's of after it."""
    found = scoring.generated_texts(lm, make_requests(do_sample=True, temperature=0.7))
    is_vllm = type(lm).__name__ == "VLLM"
    assert all(text.has_probabilities == is_vllm and text.certificate["sampled"] for text in found)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda pairs: [(float("nan"), token) for _, token in pairs], "is nan"),
        (lambda pairs: [(0.5, token) for _, token in pairs], r"is 0\.5"),
        (lambda pairs: [(None, token) for _, token in pairs], "is None"),
    ],
)
def test_what_is_no_log_probability_is_an_error(lm: Any, spoil: Any, said: str) -> None:
    lm.model.spoil = spoil
    with pytest.raises(ValueError, match=f"log-probability of token 0, id .* {said}"):
        scoring.generated_texts(lm, make_requests())


def test_too_few_are_an_error_or_no_probabilities(lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    lm.model.spoil = lambda pairs: pairs[:-4]
    if type(lm).__name__ == "VLLM":
        with pytest.raises(ValueError, match=r"vLLM gave \d+ log-probabilities of \d+ tokens"):
            scoring.generated_texts(lm, make_requests())
    else:  # the tokens come with them, and the text is not made of those
        found = scoring.generated_texts(lm, make_requests())
        assert any(text.token_log_probs is None for text in found if text)
        assert "answers have no token probabilities" in harness_log.text


@pytest.mark.parametrize("engine_lm", ["VLLM"], indirect=True)
def test_other_probabilities_than_the_model_s_own_are_refused(lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    lm.model_args["logprobs_mode"] = "processed_logprobs"
    found = scoring.generated_texts(lm, make_requests())
    assert not any(text.has_probabilities for text in found)
    assert "logprobs_mode is processed_logprobs" in harness_log.text


def test_means_of_the_most_probable_tokens(lm: Any, engine_lm: Any, smollm2_lm: Any) -> None:
    """Of 20 tokens, or of as many as the engine was started for; the written one counts if it is among them."""

    def ask(engine: Any) -> Any:
        requests = make_requests()
        for request in requests:
            request.wants_top_k = True
        return scoring.generated_texts(engine, requests)

    if type(lm).__name__ != "VLLM":
        with pytest.raises(UserError, match="SGLang's most probable tokens are not read: leave `chain` out"):
            ask(lm)
        return
    plain = scoring.generated_texts(lm, make_requests())
    for max_logprobs, k in ((None, 20), (3, 3), (-1, 20)):
        lm.model_args = {**(lm.model_args or {}), **({} if max_logprobs is None else {"max_logprobs": max_logprobs})}
        found = ask(lm)
        assert found == plain
        for text, recorded in zip(found, RECORDED, strict=True):
            others = -np.arange(1.0, k + 1)
            lists = [sorted([value, *others])[-k:] for value in recorded["logprobs"]]
            assert text.top_k == k
            np.testing.assert_allclose(text.mean_top_k, -np.mean(lists, axis=1)[: len(text.mean_top_k)])
            assert len(text.mean_top_k) == len(text.token_log_probs)
    lm.model_args = {**lm.model_args, "max_logprobs": 0}
    with pytest.raises(UserError, match="max_logprobs=0"):
        ask(lm)
