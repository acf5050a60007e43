"""What only a GPU can show: `pytest -m gpu`. Elsewhere these skip; test_simulated_device.py stands in for them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import generation_requests, make_gpt2, scoring_requests

from lm_eval_calibration import backends

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here (pytest -m gpu)"),
]

BENCHMARK = Path(__file__).parent / "benchmarks" / "stock_and_ours.py"
CONTEXTS = [f"{subject} and again {subject}: {i}" for subject in ("art", "biology") for i in range(5)]


@pytest.fixture
def lms(byte_tokenizer: Any) -> list[HFLM]:
    """The same model on the CPU and on the GPU."""
    return [
        HFLM(pretrained=make_gpt2(byte_tokenizer).to(device), tokenizer=byte_tokenizer, device=device, batch_size=4)
        for device in ("cpu", "cuda")
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_scores_are_the_cpu_s(shared: bool, lms: list[HFLM]) -> None:
    requests = scoring_requests(CONTEXTS, (" A", " B", " more"), shared_prefixes=shared, temperatures=True)
    cpu, gpu = (backends.token_scores(lm, requests) for lm in lms)
    assert {scores.certificate["shared_prefixes"] for scores in gpu} == {shared}
    assert [scores[0] for scores in gpu] == pytest.approx([scores[0] for scores in cpu], abs=1e-3)


def test_a_corpus_is_the_cpu_s(lms: list[HFLM]) -> None:
    requests = [Instance("loglikelihood_rolling", {}, ("x y" * n,), 0, metadata=("t", n, 1)) for n in (200, 3)]
    for request in requests:
        request.n_bins = 10
    cpu, gpu = (backends.corpus_scores(lm, requests) for lm in lms)
    assert gpu == pytest.approx(cpu, rel=1e-4)


def test_texts_have_token_probabilities(lms: list[HFLM]) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    found = backends.generated_texts(lms[1], generation_requests(CONTEXTS, settings))
    assert all(text.token_log_probs is not None for text in found)


def test_no_arm_falls_back() -> None:
    command = [sys.executable, str(BENCHMARK), "--device", "cuda", "--size", "tiny", "--limit", "40", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
