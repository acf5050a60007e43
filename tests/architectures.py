"""Small models of many architectures: those that share prefixes, and those that can't."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny import make_gpt2

from lm_eval_calibration.backends.hf import packed

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
LENGTH = {"max_position_embeddings": 256}
WINDOW = 24


def build(config: Any, **options: Any) -> Any:
    """Random weights, scaled so that what a token sees matters."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.15)
    return model


def config(name: str, **options: Any) -> Any:
    import transformers

    return getattr(transformers, name)(vocab_size=258, bos_token_id=1, eos_token_id=1, pad_token_id=0, **options)


def gemma3(**options: Any) -> Any:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    shape = {**SIZE, **LENGTH, "num_key_value_heads": 1, "head_dim": 8, "layer_types": kinds}
    return build(config("Gemma3TextConfig", sliding_window=WINDOW, **shape), **options)


def mistral() -> Any:
    return build(config("MistralConfig", sliding_window=WINDOW, num_key_value_heads=2, **SIZE, **LENGTH))


SHARING: dict[str, Callable[[], Any]] = {
    "GPT-2": lambda: build(config("GPT2Config", n_embd=32, n_layer=2, n_head=2, n_positions=256)),
    "Llama, grouped queries": lambda: build(config("LlamaConfig", num_key_value_heads=2, **SIZE, **LENGTH)),
    "Llama, eager": lambda: build(config("LlamaConfig", **SIZE, **LENGTH), attn_implementation="eager"),
    "Gemma 3": gemma3,
    "Gemma 3, eager": lambda: gemma3(attn_implementation="eager"),
    "Mistral": mistral,
    "Qwen2": lambda: build(config("Qwen2Config", num_key_value_heads=2, **SIZE, **LENGTH)),
    "GPT-NeoX": lambda: build(config("GPTNeoXConfig", **SIZE, **LENGTH)),
    "padding rows in the vocabulary": lambda: make_gpt2(range(258), vocab_size=320),
}
QUICK = ("Llama, grouped queries", "Gemma 3")
"""For while one edits: grouped queries, sliding windows."""

slow = partial(pytest.param, marks=pytest.mark.slow)

NOT_SHARING: dict[str, Callable[[], Any]] = {
    "Mamba": lambda: build(config("MambaConfig", hidden_size=32, num_hidden_layers=2, state_size=8)),
    "Bloom": lambda: build(config("BloomConfig", hidden_size=32, n_layer=2, n_head=2)),
    "MPT": lambda: build(config("MptConfig", d_model=32, n_layers=2, n_heads=2, max_seq_len=256)),
}


def load(model: Any, tokenizer: Any, **options: Any) -> Any:
    return HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", **{"batch_size": 3, **options})


def per_token(stock: list[Any], ours: list[Any]) -> float:
    """The largest difference of log-likelihoods."""
    return max(abs(a[0] - b[0]) / len(b.log_probs) for a, b in zip(stock, ours, strict=True))


def shared(answers: list[Any]) -> set[bool]:
    """Whether answers' prompts shared prefixes."""
    return {answer.certificate["shared_prefixes"] for answer in answers}


def only_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for models whose attention can't be chosen."""

    def no_choice(*_: Any) -> Any:
        raise TypeError("its attention can't be chosen")

    monkeypatch.setattr(packed, "apart", no_choice)
