"""A run with ``--use_cache``, killed at any moment, resumes and ends with the numbers of an undisturbed one."""

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from warm_python import Running

N_DOCS = 60
N_KILLS = int(os.environ.get("LM_EVAL_CALIBRATION_KILLS", "2"))


def write_task(folder: Path) -> None:
    rows = tiny.make_rows(N_DOCS)
    (folder / "ward.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {
        "task": "ward",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "ward.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        # What shares a batch rounds with it, and a resumed run has other batches.
        "metadata": {"version": 1, "calibration": {"shared_prefixes": False}},
    }
    (folder / "ward.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML


def write_model(folder: Path) -> None:
    tokenizer = tiny.make_tokenizer()
    tiny.make_gpt2(tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def start(python: list[str], folder: Path, output: str, *flags: str) -> Running:
    command = ["-m", "lm_eval_calibration", "run", "--tasks", "ward_calibration", "--include_path", "."]
    command += ["--model", "hf", "--model_args", "pretrained=model,dtype=float32", "--device", "cpu"]
    command += ["--batch_size", "1", "--output_path", output, "--verbosity", "INFO", *flags]  # which shows its bars
    with (folder / "said").open("wb") as said, Path(os.devnull).open("rb") as nothing:
        files = [nothing.fileno(), said.fileno(), said.fileno()]
        return Running(python[-1], command, cwd=str(folder), env=dict(os.environ), files=files)


def said_in(folder: Path) -> str:
    return (folder / "said").read_text(encoding="utf-8")


def n_kept(cache: Path) -> int:
    """Count the answers that the cache holds on disk."""
    try:
        with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=10) as database:
            return int(database.execute("select count(*) from unnamed").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def numbers(folder: Path) -> tuple[Any, Any]:
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return json.loads(results.read_text(encoding="utf-8"))["results"], [line["calibration"] for line in lines]


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_numbers(tmp_path: Path, python: list[str]) -> None:
    write_task(tmp_path)
    write_model(tmp_path)
    assert start(python, tmp_path, "undisturbed", "--use_cache", "calm").wait(300) == 0, said_in(tmp_path)
    n_requests = n_kept(tmp_path / "calm_rank0.db")
    cache, draw, kept = tmp_path / "cache_rank0.db", random.Random(0), [0]
    for kill in range(N_KILLS):
        run = start(python, tmp_path, "killed", "--use_cache", "cache")
        # Somewhere in what is left, but leave something for the kills to come.
        wanted = kept[-1] + draw.randint(0, (n_requests - kept[-1]) // (N_KILLS - kill + 1))
        while n_kept(cache) < wanted and run.wait(0) is None:
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, f"it was over before the kill: {said_in(tmp_path)}"
        kept.append(n_kept(cache))
    assert kept == sorted(kept)
    assert 0 < kept[-1] < n_requests, "the kills hit no run in the middle"
    assert start(python, tmp_path, "killed", "--use_cache", "cache").wait(300) == 0, said_in(tmp_path)
    assert f"/{n_requests - kept[-1]} [" in said_in(tmp_path), "what the cache holds is not asked again"
    assert n_kept(cache) == n_requests
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "undisturbed")
