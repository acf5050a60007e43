"""Prompts that reach beyond a model's windows: shared beginnings give the stock run's numbers there, or are refused.

Flex attention is compiled for minutes on a CPU; packs have our own attention whatever the model's is.
"""

import random
from typing import Any

import pytest
from architectures import SIZE, build, config, load, only_masks, per_token, shared, slow
from lm_eval.api.instance import Instance
from tiny import scoring_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends.hf import trial

pytestmark = pytest.mark.usefixtures("launching_a_pack_costs_no_more")

KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
SHAPE = {**SIZE, "max_position_embeddings": 1024, "num_key_value_heads": 2, "head_dim": 8}
MODELS = {"MistralConfig": {}, "Gemma3TextConfig": {"layer_types": KINDS}, "Cohere2Config": {"layer_types": KINDS}}


def beyond(window: int) -> list[Instance]:
    """Two subjects with beginnings longer than the window; questions behind them."""
    rng = random.Random(window)
    contexts = []
    for _ in range(2):
        begin = "".join(rng.choice("abcdefgh ") for _ in range(window + 40))
        contexts += [begin + "".join(rng.choice("xyz ") for _ in range(rng.randrange(5, 40))) + "?" for _ in range(4)]
    return scoring_requests(contexts, [" A", " Can"])


def windowed(name: str, window: int, implementation: str, tokenizer: Any) -> Any:
    chosen = config(name, sliding_window=window, **SHAPE, **MODELS[name])
    return load(build(chosen, attn_implementation=implementation), tokenizer, max_length=1024)


def gpt_neo(window: int, tokenizer: Any) -> Any:
    """Its local layers count how far a token is in the line, not in its row, and no mask tells them otherwise."""
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 1024}
    kinds = [[["global", "local"], 1]]
    return load(build(config("GPTNeoConfig", attention_types=kinds, window_size=window, **shape)), tokenizer)


@pytest.mark.parametrize(
    ("name", "window", "implementation"),
    [
        ("MistralConfig", 64, "sdpa"),
        ("MistralConfig", 300, "eager"),
        ("Gemma3TextConfig", 300, "sdpa"),
        *(slow(name, window, how) for name in MODELS for window in (16, 64, 300) for how in ("eager", "sdpa")),
    ],
)
def test_behind_a_window_the_numbers_are_the_stock_run_s(
    name: str, window: int, implementation: str, byte_tokenizer: Any
) -> None:
    lm = windowed(name, window, implementation, byte_tokenizer)
    requests = beyond(window)
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert shared(ours) == {True}
    assert per_token(stock, ours) < 1e-4


@pytest.mark.parametrize("window", [64, slow(300)])
def test_a_mask_is_tried_beyond_the_window_or_not_used(
    window: int, byte_tokenizer: Any, harness_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_masks(monkeypatch)
    lm = windowed("Gemma3TextConfig", window, "sdpa", byte_tokenizer)
    requests = beyond(window)
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    assert shared(scoring.token_scores(lm, requests)) == {False}
    assert f"the run is too small for a trial beyond the {window} tokens" in harness_log.text
    monkeypatch.setattr(trial, "_SHARE", 1.0)
    ours = scoring.token_scores(lm, requests)
    assert shared(ours) == {True}
    assert per_token(stock, ours) < 1e-4


@pytest.mark.parametrize(("share", "reason"), [(0.05, "the run is too small"), (1.0, "its logits differ alone")])
def test_a_window_of_the_model_s_own_is_found_beyond_it(
    share: float,
    reason: str,
    byte_tokenizer: Any,
    harness_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "_SHARE", share)
    lm, requests = gpt_neo(64, byte_tokenizer), beyond(64)
    within = scoring_requests([f"ten words or so {i}?" for i in range(9)], [" A", " B"])
    assert True in shared(scoring.token_scores(lm, within))
    stock = lm.loglikelihood(requests, disable_tqdm=True)
    ours = scoring.token_scores(lm, requests)
    assert reason in harness_log.text
    assert shared(ours) == {False}
    assert per_token(stock, ours) < 1e-5


def test_what_a_configuration_says_of_reaches() -> None:
    neo = config("GPTNeoConfig", window_size=64)
    assert trial.reaches(neo, 64) == []
    assert trial.reaches(neo, 65) == [64]
    qwen = config("Qwen2Config", sliding_window=300, use_sliding_window=True, max_window_layers=5)
    assert trial.reaches(qwen, 1000) == [1, 300]  # and that there is one
    assert trial.reaches(qwen, 1000, but=["sliding_window"]) == [1]


@pytest.mark.parametrize("tokens", [10, 1000, 10**5])
@pytest.mark.parametrize("reach", [0, 2, 300])
def test_a_trial_reaches_beyond_and_costs_what_it_says(tokens: int, reach: int) -> None:
    size = trial.size_of(tokens, reach)
    assert size.beginning + 2 * size.part > reach
    assert size.tokens == 2 * size.beginning + 8 * size.part
    assert trial.size_of(tokens).tokens <= max(0.05 * tokens, 10)
