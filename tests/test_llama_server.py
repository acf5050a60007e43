"""llama-cpp-python's server, whose echo is shifted by one position for a model without BOS. Opt-in: a slow server.

    LM_EVAL_CALIBRATION_LLAMA="PYTHON" python -m pytest tests/test_llama_server.py

PYTHON is of a venv with `CMAKE_ARGS="-DMTMD_BUILD=OFF -DLLAVA_BUILD=OFF" pip install
'llama-cpp-python[server]==0.3.36'` (minutes to build; cmake and a compiler). It sorts the vocabulary for every token:
some 5 s a request.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

PYTHON = os.environ.get("LM_EVAL_CALIBRATION_LLAMA", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_model,
    pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is built in a venv (set LM_EVAL_CALIBRATION_LLAMA)"),
]


@pytest.fixture(scope="module")
def url(smollm2_args: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = Path(smollm2_args["pretrained"]) / smollm2_args["gguf_file"]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", str(file), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--logits_all", "true", "--n_ctx", "2048", "--model_alias", "x"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            assert server.poll() is None, "the server did not start"
            try:
                with urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                    break
            except (URLError, OSError):
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1/completions"
    finally:
        server.kill()
        server.wait()


def test_a_check_finds_the_shifted_echo(
    url: str, smollm2_lm: Any, smollm2_args: dict[str, str], tmp_path: Path
) -> None:
    smollm2_lm.tokenizer.save_pretrained(tmp_path)
    backend = {"base_url": url, "model": "x", "tokenizer": tmp_path, "tokenizer_backend": "huggingface"}
    backend |= {"tokenized_requests": False, "max_length": 1024, "timeout": 600}
    command = [sys.executable, "-m", "lm_eval_calibration", "check", "--model", "local-completions", "--limit", "3"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in backend.items())]
    reference = {**smollm2_args, "device": "cpu"}
    command += ["--reference_args", ",".join(f"{name}={value}" for name, value in reference.items())]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 1, checked.stdout + checked.stderr[-2000:]
    found = "the server's log-probabilities are shifted by one position"
    assert f"LocalCompletionsAPI at {url}: {found}" in checked.stderr  # the run itself
    assert found in " ".join(checked.stdout.split())  # the table of the check
