"""Models and data for the tests. Nothing here needs a network."""

import logging
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Before any Hugging Face library is imported: a test must never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers with a thread on every core each are slower than one

import pytest
from tiny import make_gpt2, make_t5, make_tokenizer

REPOSITORY = Path(__file__).parents[1]
HUB = Path(os.environ.get("LM_EVAL_CALIBRATION_HUB", REPOSITORY.parent / "shared" / "data" / "hub"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever runs the real model takes more than some seconds; files with slow tests come first.

    Workers take whole files in this order: at the end there are small ones, so that both end together.
    """
    for item in items:
        if item.get_closest_marker("real_model"):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def hub() -> Path:
    """A folder that holds `cais/mmlu/` and the medical data sets, so that stock tasks load offline."""
    if not HUB.is_dir():
        pytest.skip(f"no benchmark data in {os.path.relpath(HUB, REPOSITORY)} (set LM_EVAL_CALIBRATION_HUB)")
    return HUB


@pytest.fixture(scope="session", autouse=True)
def _index_once() -> Iterator[None]:
    """Let the harness read the YAMLs of its own tasks and of ours once, and copy the index that it makes of them."""
    if "lm_eval.tasks" not in sys.modules:  # no test collected needs it
        yield
        return
    from lm_eval.tasks import _index

    from lm_eval_calibration.harness.task_configs import task_configs

    build, kept = _index.TaskIndex.build, (Path(_index.__file__).parent, task_configs())

    @cache
    def pickled(path: Path, resolve_includes: bool) -> bytes:
        return pickle.dumps(build([path], resolve_includes=resolve_includes))

    def build_once(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, Any]:
        index: dict[str, Any] = {}
        for path in paths:
            once = path in kept
            found = (
                pickle.loads(pickled(path, resolve_includes))
                if once
                else build([path], resolve_includes=resolve_includes)
            )
            for name, entry in found.items():
                if name in index:
                    message = "Task '%s' from %s overrides existing task from %s"
                    _index.log.warning(message, name, entry.yaml_path, index[name].yaml_path)
                index[name] = entry
        return index

    _index.TaskIndex.build = staticmethod(build_once)
    yield
    _index.TaskIndex.build = staticmethod(build)


@pytest.fixture(autouse=True)
def _quiet_harness() -> Iterator[None]:
    """Leave the harness's logger as other tests found it."""
    logger = logging.getLogger("lm_eval")
    state = logger.level, logger.propagate
    yield
    logger.level, logger.propagate = state
    logger.manager._clear_cache()  # levels are cached per logger


@pytest.fixture(autouse=True)
def _no_cache_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A model that tests share must not answer the next one from the cache of the last (CachingLM hooks into it)."""
    shared = [n for n in ("gpt2_lm", "t5_lm", "smollm2_lm") if n in request.fixturenames]
    models = [request.getfixturevalue(name) for name in shared]
    yield
    if models:
        from lm_eval.api.model import CacheHook

        for model in models:
            model.cache_hook = CacheHook(None)


@pytest.fixture
def harness_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the harness's logger (and so ours) said; it does not propagate by itself once set up."""
    logging.getLogger("lm_eval").propagate = True
    logging.getLogger("lm_eval").setLevel(logging.INFO)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def gpt2_lm(byte_tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=make_gpt2(byte_tokenizer),
        tokenizer=byte_tokenizer,
        backend="causal",
        device="cpu",
        batch_size=8,
    )


@pytest.fixture(scope="session")
def t5_lm(byte_tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=make_t5(byte_tokenizer),
        tokenizer=byte_tokenizer,
        backend="seq2seq",
        device="cpu",
        batch_size=8,
        max_length=256,
    )


@pytest.fixture(scope="session")
def smollm2_args() -> dict[str, str]:
    """Model arguments of the real SmolLM2-135M-Instruct."""
    pytest.importorskip("gguf", reason="GGUF files need `gguf` (extra `demo`)")
    from lm_eval_calibration.demo import local_gguf_file

    if (file := local_gguf_file()) is None:
        pytest.skip("the real model is not here: lm-eval-calibration demo --limit 1 fetches it")
    return {"pretrained": str(file.parent), "gguf_file": file.name, "dtype": "float32"}


@pytest.fixture(scope="session")
def smollm2_lm(smollm2_args: dict[str, str]) -> Any:
    from lm_eval.models.huggingface import HFLM

    from lm_eval_calibration.backends.hf.gguf_files import read_once

    with read_once(smollm2_args):
        return HFLM(**smollm2_args, device="cpu", batch_size=4)
