"""Models that are not plain: adapters, weights of 4 and 8 bits, tokenizers that put a token before every text.

Scores and texts are stock's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny import generation_requests, make_gpt2, make_tokenizer, scoring_requests

from lm_eval_calibration import backends as scoring

pytestmark = [
    # PEFT's, as the harness loads it; the second where it finds no network
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file in .* will assume that the vocabulary was not mod"),
    # the harness passes on what it read in the model's own configuration
    pytest.mark.filterwarnings("ignore:You passed `quantization_config` or equivalent parameters:UserWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]

BOS = {"of its own": None, "wanted": True, "refused": False}

PROMPTS = ["Question: 1+1?\nAnswer:", "a", "Once upon a time ", "left end is cut off " * 30]


def make_bos_tokenizer() -> Any:
    """The bytes, and one token more that begins every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


def adapted(folder: Path) -> HFLM:
    """A model with a LoRA adapter that changes it, both read from folders as the harness reads them."""
    peft = pytest.importorskip("peft", reason="adapters need the extra `tuning`")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    make_gpt2(tokenizer).save_pretrained(folder / "base")
    config = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    torch.manual_seed(1)
    peft.get_peft_model(make_gpt2(tokenizer), config).save_pretrained(folder / "adapter")
    return HFLM(pretrained=str(folder / "base"), peft=str(folder / "adapter"), device="cpu", batch_size=3)


def quantized(folder: Path, bits: int) -> HFLM:
    """A model saved with weights of so many bits: transformers 5 takes no `load_in_4bit` from the harness."""
    pytest.importorskip("bitsandbytes", reason="quantized models need `pip install bitsandbytes`")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tokenizer = make_tokenizer()
    make_gpt2(tokenizer).save_pretrained(folder / "whole")
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model = AutoModelForCausalLM.from_pretrained(folder / "whole", quantization_config=config, device_map="cpu")
    assert any("bitsandbytes" in type(module).__module__ for module in model.modules())
    model.save_pretrained(folder / "quantized")
    tokenizer.save_pretrained(folder / "quantized")
    return HFLM(pretrained=str(folder / "quantized"), device="cpu", batch_size=3, dtype="float32")


def with_bos(add: bool | None) -> HFLM:
    tokenizer = make_bos_tokenizer()
    return HFLM(pretrained=make_gpt2(tokenizer), tokenizer=tokenizer, backend="causal", device="cpu", add_bos_token=add)


@pytest.fixture(
    scope="module",
    params=["adapter", "4 bits", "8 bits", *(pytest.param(f"bos {how}", marks=pytest.mark.slow) for how in BOS)],
)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HFLM:
    if request.param == "adapter":
        return adapted(tmp_path_factory.mktemp("adapter"))
    if request.param.endswith("bits"):
        return quantized(tmp_path_factory.mktemp("quantized"), int(request.param[0]))
    return with_bos(BOS[request.param.removeprefix("bos ")])


def test_scores_are_stock_s_and_the_model_s_own(lm: HFLM) -> None:
    requests = scoring_requests(PROMPTS, (" A", " B", " some words"))
    found = scoring.token_scores(lm, requests)
    for request, ours, stock in zip(requests, found, lm.loglikelihood(requests, disable_tqdm=True), strict=True):
        assert ours.log_probs is not None
        assert ours[0] == pytest.approx(stock[0], abs=1e-4 * len(ours.log_probs))
        assert ours[1] == stock[1]
        context, continuation = lm._encode_pair(*request.args)
        inputs = [*context, *continuation][-(lm.max_length + 1) :][:-1]
        with torch.no_grad():
            probs = lm.model(torch.tensor([inputs])).logits[0, -len(continuation) :].double().softmax(-1).numpy()
        np.testing.assert_allclose(
            np.exp(ours.log_probs), probs[range(len(continuation)), continuation], rtol=0, atol=1e-5
        )
        for mine, row in zip(ours.large_probs or (), probs, strict=True):
            np.testing.assert_allclose(np.sort(mine)[-5:], np.sort(row)[-5:][-len(mine) :], rtol=0, atol=1e-5)


def test_texts_are_stock_s(lm: HFLM) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    found = scoring.generated_texts(lm, generation_requests(PROMPTS[:3], settings))
    assert list(map(str, found)) == lm.generate_until(generation_requests(PROMPTS[:3], settings), disable_tqdm=True)
    assert all(text.token_log_probs is not None for text in found)


def test_the_adapter_and_the_first_token_change_what_is_scored(tmp_path: Path) -> None:
    request = scoring_requests(["Once upon a time"], [" A"])
    lm = adapted(tmp_path)
    with_adapter = scoring.token_scores(lm, request)[0][0]
    with lm.model.disable_adapter():
        assert abs(scoring.token_scores(lm, request)[0][0] - with_adapter) > 0.01
    first, none = (scoring.token_scores(with_bos(add), request)[0][0] for add in (True, False))
    assert abs(first - none) > 1e-4
