"""A GGUF file is parsed once while the harness loads its model, which is the same model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_eval_calibration.backends.hf.gguf_files import read_once

gguf = pytest.importorskip("gguf", reason="GGUF files need `gguf` (extra `demo`)")

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 2, 256


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny Llama with random weights and a tokenizer of bytes."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(256 + i) for i in range(VOCABULARY - 96)] + ["ab"] + [chr(c) for c in range(32, 127)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for i in range(LAYERS):
        block = f"blk.{i}."
        shapes |= {f"{block}{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"{block}{name}": (2 * WIDTH, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"{block}ffn_down": (WIDTH, 2 * WIDTH)}
        shapes |= {f"{block}{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that were parsed."""
    seen: list[Any] = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path: Any, *args: Any) -> None:
            seen.append(path)
            super().__init__(path, *args)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    return seen


def load(file: Path, **arguments: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(file.parent), gguf_file=file.name, dtype="float32", device="cpu", **arguments)


def test_a_file_is_parsed_once_and_gives_the_same_model(file: Path, parsed: list[Any]) -> None:
    from lm_eval.models.huggingface import HFLM

    stock, untouched = load(file), HFLM.__init__
    assert len(parsed) > 1, "transformers parses a GGUF file once by itself: read_once can go"
    parsed.clear()
    with read_once(f"pretrained={file.parent},gguf_file={file.name}"):
        ours = load(file)
    assert len(parsed) == 1
    assert HFLM.__init__ is untouched
    tokens = torch.tensor([stock.tok_encode("abab ab")])
    assert tokens.tolist() == [ours.tok_encode("abab ab")]
    assert torch.equal(stock.model(tokens).logits, ours.model(tokens).logits)


@pytest.mark.parametrize("model_args", [None, {}, "pretrained=gpt2", {"pretrained": "gpt2"}])
def test_other_models_are_loaded_as_ever(model_args: Any) -> None:
    from lm_eval.models.huggingface import HFLM

    untouched = HFLM.__init__
    with read_once(model_args):
        assert HFLM.__init__ is untouched
