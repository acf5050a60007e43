"""What the tests of backends share."""

import asyncio
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import model_registry

from lm_eval_calibration.backends.hf import cost


@pytest.fixture(scope="session")
def tokenizer_path(byte_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness tries again soon, where it would wait for seconds (not at once: a run that failed is to be over)."""
    tenacity = pytest.importorskip("tenacity", reason="servers need `pip install 'lm-eval[api]'`")
    sleep = asyncio.sleep
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(asyncio, "sleep", lambda *_: sleep(0.05))


@pytest.fixture(params=["gpt2_lm", "t5_lm"])
def either_lm(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A causal model, and an encoder-decoder, whose batch size a test may change."""
    lm = request.getfixturevalue(request.param)
    size = lm.batch_size_per_gpu
    yield lm
    lm.batch_size_per_gpu = size


@pytest.fixture
def launching_a_pack_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of tests are so small that else one plain call is cheaper than a pack that spares most tokens."""
    monkeypatch.setattr(cost, "PACK_LAUNCHES", cost.PLAIN_LAUNCHES)


class Params(SimpleNamespace):
    """vLLM's SamplingParams."""

    logprobs: int | None = None
    prompt_logprobs: int | None = None


@pytest.fixture
def vllm_class(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The harness's class, imported with a package `vllm` that has the names it wants and nothing behind them."""
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM itself is here")
    names = {
        "vllm": {"LLM": None, "SamplingParams": Params, "TokensPrompt": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": None},
        "vllm.renderers": {},
        "vllm.renderers.hf": {"resolve_chat_template": None},
        "vllm.tokenizers": {"get_tokenizer": None},
    }
    for name, contents in names.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(model_registry, "_objs", {k: v for k, v in model_registry._objs.items() if k != "vllm"})
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.32.0" if name == "vllm" else version(name))
    yield importlib.import_module("lm_eval.models.vllm_causallms").VLLM
    sys.modules.pop("lm_eval.models.vllm_causallms", None)


def make_lm(cls: Any, tokenizer: Any, engine: Any) -> Any:
    lm = cls.__new__(cls)
    TemplateLM.__init__(lm)
    vars(lm).update(tokenizer=tokenizer, model=engine, batch_size=2, add_bos_token=False, think_end_token=None)
    vars(lm).update(custom_prefix_token_id=None, _max_length=1024, _max_gen_toks=256, data_parallel_size=1)
    vars(lm).update(lora_request=None, truncation_side="left", model_args={"dtype": "float32"}, enable_thinking=False)
    return lm


@pytest.fixture(params=["VLLM", "SGLangLM"])
def engine_lm(request: pytest.FixtureRequest) -> Any:
    """Function that makes the harness's own class over a tokenizer and the stand-in of its engine."""
    if request.param == "VLLM":
        cls = request.getfixturevalue("vllm_class")
    else:
        cls = importlib.import_module("lm_eval.models.sglang_causallms").SGLangLM

    def make(tokenizer: Any, engines: Any) -> Any:
        return make_lm(cls, tokenizer, engines[request.param](tokenizer))

    return make
