"""A GGUF file is parsed once while the harness loads its model, which is the same model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_gguf

from lm_eval_calibration.backends.hf.gguf_files import read_once

gguf = pytest.importorskip("gguf", reason="GGUF files need `gguf` (extra `demo`)")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_gguf(path := tmp_path / "tiny.gguf")
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
