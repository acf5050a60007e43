"""vLLM and SGLang, by what they answer: vLLM's is recorded from the real engine, SGLang's has its documented form."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import scoring_requests

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import token_scores
from lm_eval_calibration.backends.engines.sglang import positions as sglang_positions
from lm_eval_calibration.backends.engines.vllm import positions as vllm_positions
from lm_eval_calibration.backends.top_k import scores_of

RECORDED = json.loads((Path(__file__).parent / "recorded_vllm.json").read_text(encoding="utf-8"))["outputs"]


def vllm_output(recorded: dict[str, Any]) -> tuple[list[int], Any]:
    """The prompt's tokens and the engine's answer, in the engine's form."""
    positions = [
        None if given is None else {int(token): SimpleNamespace(logprob=value) for token, value in given.items()}
        for given in recorded["prompt_logprobs"]
    ]
    return recorded["prompt"], SimpleNamespace(prompt_logprobs=positions)


def sglang_output(recorded: dict[str, Any]) -> tuple[list[int], Any]:
    prompt, output = vllm_output(recorded)
    own: list[Any] = [(None, prompt[0], None)]
    tops: list[Any] = [None]
    for token, given in zip(prompt[1:], output.prompt_logprobs[1:], strict=True):
        own.append((given[token].logprob, token, None))
        best = sorted(given, key=lambda t: -given[t].logprob)[:20]
        tops.append([(given[t].logprob, t, None) for t in best])
    return prompt, {"meta_info": {"input_token_logprobs": own, "input_top_logprobs": tops}}


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("recorded", RECORDED)
@pytest.mark.parametrize(("output_of", "read"), [(vllm_output, vllm_positions), (sglang_output, sglang_positions)])
def test_what_engines_tell_is_what_the_model_gives(
    smollm2_lm: Any, recorded: dict[str, Any], output_of: Any, read: Any
) -> None:
    prompt, output = output_of(recorded)
    scores = scores_of(read(prompt, output, 1), 20, are_ids=True, vocab_size=None, certificate={})
    with torch.no_grad():
        log_probs = smollm2_lm.model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)[:-1].numpy()
    own = log_probs[np.arange(len(prompt) - 1), prompt[1:]]
    np.testing.assert_allclose(scores.log_probs, own, atol=1e-3)
    assert scores[0] == pytest.approx(own.sum(), abs=1e-3)
    assert scores.complete_from <= 0.05
    expected = metrics.full_ece(np.exp(log_probs), prompt[1:], n_bins=20)
    gaps = sum(
        metrics.gap_sums(large, np.exp(target), n_bins=20)
        for large, target in zip(scores.large_probs or (), own, strict=True)
    )
    assert np.abs(gaps).sum() / len(own) == pytest.approx(expected, abs=1e-4)


def test_a_token_without_a_log_probability_is_an_error() -> None:
    prompt, output = vllm_output(RECORDED[0])
    del output.prompt_logprobs[-1][prompt[-1]]
    with pytest.raises(ValueError, match=f"no log-probability of the prompt's token {len(prompt) - 1}"):
        vllm_positions(prompt, output, 1)


@pytest.mark.parametrize("value", [float("nan"), 0.5, None])
def test_what_is_no_log_probability_is_an_error(value: Any) -> None:
    prompt, output = vllm_output(RECORDED[0])
    output.prompt_logprobs[3][prompt[3]] = SimpleNamespace(logprob=value)
    with pytest.raises(ValueError, match="log-probability of token 3"):
        vllm_positions(prompt, output, 1)
    prompt, output = sglang_output(RECORDED[0])
    output["meta_info"]["input_token_logprobs"][3] = (value, prompt[3], None)
    with pytest.raises(ValueError, match="log-probability of token 3"):
        sglang_positions(prompt, output, 1)


def test_probabilities_among_the_allowed_tokens_alone_are_an_error() -> None:
    """As where the engine restricts before it takes log-probabilities."""
    given = {7: SimpleNamespace(logprob=0.0), 8: SimpleNamespace(logprob=-math.inf)}
    output = SimpleNamespace(prompt_logprobs=None, outputs=[SimpleNamespace(logprobs=[given])])
    with pytest.raises(ValueError, match="token 2 as if no other were allowed"):
        vllm_positions([5, 6, 7], output, 2)
    with pytest.raises(ValueError, match="0 positions of a prompt of 3 tokens"):
        vllm_positions([5, 6, 7], output, 1)


def test_positions_of_another_prompt_are_an_error() -> None:
    prompt, output = vllm_output(RECORDED[0])
    with pytest.raises(ValueError, match="positions of a prompt"):
        vllm_positions([*prompt, 5], output, 1)
    prompt, output = sglang_output(RECORDED[0])
    with pytest.raises(ValueError, match="for the prompt's token 2"):
        sglang_positions([*prompt[:2], prompt[2] + 1, *prompt[3:]], output, 1)


class VLLMEngine:
    """Gives the 20 most probable tokens of each position, and the prompt's own, as the tiny model has them."""

    n_short = 0  # prompts of which one token's log-probability was wanted

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def rows(self, prompt: list[int]) -> tuple[Any, list[list[int]]]:
        with torch.no_grad():
            rows = self.lm.model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
        return rows, [row.topk(20).indices.tolist() for row in rows]

    def generate(self, prompts: Any, sampling_params: Any, **_: Any) -> list[Any]:
        outputs = []
        for prompt, params in zip([prompt["prompt_token_ids"] for prompt in prompts], sampling_params, strict=True):
            self.n_short += params.prompt_logprobs is None
            rows, tops = self.rows(prompt)
            if params.prompt_logprobs is None:  # it may write one token alone, whose log-probability is raw
                assert params.logprobs == 20
                (token,) = params.allowed_token_ids
                given = {t: SimpleNamespace(logprob=float(rows[-1][t])) for t in {*tops[-1], token}}
                outputs.append(SimpleNamespace(prompt_logprobs=None, outputs=[SimpleNamespace(logprobs=[given])]))
                continue
            assert params.prompt_logprobs == 20
            at: list[Any] = [None]
            for row, top, token in zip(rows, tops, prompt[1:], strict=False):
                at.append({t: SimpleNamespace(logprob=float(row[t])) for t in {*top, token}})
            outputs.append(SimpleNamespace(prompt_logprobs=at))
        return outputs


class SGLangEngine(VLLMEngine):
    def generate(self, input_ids: Any, top_logprobs_num: int, **_: Any) -> list[Any]:  # type: ignore[override]
        assert top_logprobs_num == 20
        outputs = []
        for prompt in input_ids:
            rows, tops = self.rows(prompt)
            pairs = list(zip(rows, tops, prompt[1:], strict=False))
            own = [(None, prompt[0], None), *((float(row[token]), token, None) for row, _, token in pairs)]
            best = [None, *([(float(row[t]), t, None) for t in top] for row, top, _ in pairs)]
            outputs.append({"meta_info": {"input_token_logprobs": own, "input_top_logprobs": best}})
        return outputs


def test_engines_score_as_the_model_does(engine_lm: Any, gpt2_lm: Any) -> None:
    """Through the harness's own classes."""
    engines = {"VLLM": lambda _: VLLMEngine(gpt2_lm), "SGLangLM": lambda _: SGLangEngine(gpt2_lm)}
    lm = engine_lm(gpt2_lm.tokenizer, engines)
    requests = scoring_requests(["Which letter?", "a", "one two"], ["A", "B", "\n", " Canberra"])
    scores = token_scores(lm, requests)
    for ours, hf in zip(scores, token_scores(gpt2_lm, requests), strict=True):
        assert ours[0] == pytest.approx(hf[0], abs=1e-5)
        assert ours[1] == hf[1]
        np.testing.assert_allclose(ours.log_probs, hf.log_probs, atol=1e-5)
        assert (ours.vocab_size, ours.certificate["k"]) == (hf.vocab_size, 20)
    of_one = sum(len(one.log_probs) == 1 for one in scores)
    assert 0 < of_one < len(requests)
    assert lm.model.n_short == (0 if isinstance(lm.model, SGLangEngine) else of_one)


@pytest.mark.parametrize("engine_lm", ["VLLM"], indirect=True)
def test_a_prompt_that_ends_in_continuations_of_one_token_and_of_several(engine_lm: Any, gpt2_lm: Any) -> None:
    """The same tokens: the log-probabilities of all that any of them scores are wanted."""
    lm = engine_lm(gpt2_lm.tokenizer, {"VLLM": lambda _: VLLMEngine(gpt2_lm)})
    requests = [*scoring_requests(["xA"], ["B"]), *scoring_requests(["x"], ["AB"])]
    scores = token_scores(lm, requests)
    assert [len(one.log_probs) for one in scores] == [1, 2]
    for ours, hf in zip(scores, token_scores(gpt2_lm, requests), strict=True):
        np.testing.assert_allclose(ours.log_probs, hf.log_probs, atol=1e-5)
    assert lm.model.n_short == 0
