"""Models and data for the tests. Nothing here needs a network."""

import gc
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any Hugging Face library is imported: a test must never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several workers with a thread on every core each are slower than one

import pytest
import warm_python
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


def pytest_collection_finish() -> None:
    """Nothing imported so far becomes garbage; looking through it again and again is some 5% of the tests' time."""
    gc.freeze()


@pytest.fixture(scope="session")
def hub() -> Path:
    """A folder that holds `cais/mmlu/` and the medical data sets, so that stock tasks load offline."""
    if not HUB.is_dir():
        pytest.skip(f"no benchmark data in {os.path.relpath(HUB, REPOSITORY)} (set LM_EVAL_CALIBRATION_HUB)")
    return HUB


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _index_once(run_folder: Path) -> Iterator[None]:
    """Let the harness read the YAMLs of its own tasks and of ours once, and copy the index that it makes of them."""
    if "lm_eval.tasks" not in sys.modules:  # no test collected needs it
        yield
        return
    from stock_index import built_once

    with built_once(run_folder):
        yield


@pytest.fixture(scope="session")
def python(run_folder: Path) -> Iterator[list[str]]:
    """What stands for ``python`` in front of a program that is to run in a process of its own, after all imports."""
    from filelock import FileLock

    address = run_folder / "python"
    with FileLock(f"{address}.lock"):
        held = warm_python.hold(str(address))
    yield [sys.executable, "-I", "-S", warm_python.__file__, str(address)]
    held.close()


@pytest.fixture(scope="session")
def programs(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with the commands ``lm-eval-calibration`` and ``lm_eval``."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in {"lm-eval-calibration": "lm_eval_calibration", "lm_eval": "lm_eval"}.items():
        script = f'#!/bin/sh\nexec {shlex.join(python)} -m {module} "$@"\n'
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


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
def smollm2_args(run_folder: Path) -> dict[str, str]:
    """Model arguments of the real SmolLM2-135M-Instruct, read from its GGUF file once for all workers."""
    pytest.importorskip("gguf", reason="GGUF files need `gguf` (extra `demo`)")
    from filelock import FileLock

    from lm_eval_calibration.demo import local_gguf_file

    if (file := local_gguf_file()) is None:
        pytest.skip("the real model is not here: lm-eval-calibration demo --limit 1 fetches it")
    folder = run_folder / "smollm2"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            write_plainly(file, part := run_folder / "smollm2.part")
            part.rename(folder)
    return {"pretrained": str(folder), "dtype": "float32"}


def write_plainly(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file as one that was never quantised: the same weights, read in no time."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_calibration.backends.hf.gguf_files import read_once

    arguments = {"pretrained": str(file.parent), "gguf_file": file.name, "dtype": "float32"}
    with read_once(arguments):
        lm = HFLM(**arguments, device="cpu")
    lm.model.hf_quantizer = None
    del lm.model.config.quantization_config
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def smollm2_lm(smollm2_args: dict[str, str]) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(**smollm2_args, device="cpu", batch_size=4)
