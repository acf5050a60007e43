"""What the tests of backends share."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer_path(byte_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness tries again at once, where it would wait for seconds."""
    tenacity = pytest.importorskip("tenacity", reason="servers need `pip install 'lm-eval[api]'`")
    sleep = asyncio.sleep
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(asyncio, "sleep", lambda *_: sleep(0))


@pytest.fixture(params=["gpt2_lm", "t5_lm"])
def either_lm(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A causal model, and an encoder-decoder, whose batch size a test may change."""
    lm = request.getfixturevalue(request.param)
    size = lm.batch_size_per_gpu
    yield lm
    lm.batch_size_per_gpu = size
