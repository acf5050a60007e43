"""Runs of made-up models on made-up docs, written as the harness writes them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_calibration.records import ChoicesRecord


def write_run(
    folder: Path,
    *,
    model: str = "org/model",
    tasks: Mapping[str, int] | None = None,
    seed: int = 0,
    docs: int = 0,
    sharpness: float = 1.5,
    time: str = "2026-01-31T10-00-00.000001",
    shots: int = 0,
    n_bins: int = 10,
    version: float = 1.0,
    tokenizer: str | None = "tok",
    prompt: str = "",
    template: str | None = None,
    text: str = "planted question",
    groups: Mapping[str, list[str]] | None = None,
    certificate: Mapping[str, Any] | None = None,
    passages: int = 0,
) -> Path:
    """Write ``results_*.json`` and ``samples_*.jsonl`` of a model and return their folder.

    Args:
        folder: where to.
        model: its name.
        tasks: number of docs of each.
        seed: of the model: what it thinks of the docs.
        docs: seed of the docs: runs with the same have the same docs and labels.
        sharpness: the model's log-likelihoods are this many times those that would be calibrated.
        time: in the files' names.
        shots: number of examples in the prompts.
        n_bins: of the run.
        version: of the tasks.
        tokenizer: its name; None where the backend gives no token distributions.
        prompt: what prompts differ by.
        template: hash of the chat template.
        text: of the docs.
        groups: group to its tasks.
        certificate: what its certificates say otherwise.
        passages: number of passages that the docs are about in turn; of none where 0.
    """
    tasks = tasks or {"anatomy_calibration": 200}
    folder.mkdir(parents=True, exist_ok=True)
    for task, n in tasks.items():
        lines = [
            json.dumps(line)
            for line in _lines(
                task,
                n,
                seed=seed,
                docs=docs,
                sharpness=sharpness,
                tokenizer=tokenizer,
                prompt=f"{prompt}{shots}",
                text=text,
                certificate=certificate or {},
                passages=passages,
            )
        ]
        (folder / f"samples_{task}_{time}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"n_bins": n_bins, "definition_version": 1, "version": "0.1.0"}
    results = {
        "results": {task: {"alias": task} for task in tasks},
        "group_subtasks": dict(groups or {}),
        "configs": {
            task: {
                "task": task,
                "dataset_path": "org/data",
                "dataset_name": task.removesuffix("_calibration"),
                "test_split": "test",
                "metadata": {"version": version, "calibration": options},
            }
            for task in tasks
        },
        "versions": dict.fromkeys(tasks, version),
        "n-shot": dict.fromkeys(tasks, shots),
        "n-samples": {task: {"original": n, "effective": n} for task, n in tasks.items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "limit": None},
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.0.0",
        "model_name": model,
        "chat_template_sha": template,
    }
    (folder / f"results_{time}.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def _lines(
    task: str,
    n: int,
    *,
    seed: int,
    docs: int,
    sharpness: float,
    tokenizer: str | None,
    prompt: str,
    text: str,
    certificate: Mapping[str, Any],
    passages: int,
) -> list[dict[str, Any]]:
    of_docs = np.random.default_rng([docs, len(task)])
    truth = of_docs.normal(0, 1.5, (n, 4))
    golds = [int(of_docs.choice(4, p=np.exp(z) / np.exp(z).sum())) for z in truth]
    noise = np.random.default_rng([seed, 7]).normal(0, 0.02, (n, 4))
    found = []
    for i, (z, gold) in enumerate(zip(sharpness * (truth + noise), golds, strict=True)):
        probs = np.exp(z) / np.exp(z).sum()
        doc_hash = _hash(f"{task} {docs} {i}")
        record = ChoicesRecord(
            task=task,
            doc_id=i,
            doc_hash=doc_hash,
            prompt_hash=_hash(f"{task} {docs} {i} {prompt}"),
            log_likelihoods=tuple(np.log(probs).tolist()),
            gold=gold,
            certificate={"backend": "HFLM", "tokenizer": tokenizer, "versions": {"lm-eval": "0.4.13"}, **certificate},
            **({} if tokenizer is None else _distributions(probs, gold)),
        )
        found.append(
            {
                "doc_id": i,
                "doc": {"question": f"{text} {i}", **({"passage": i % passages} if passages else {})},
                "filter": "none",
                "doc_hash": doc_hash,
                "calibration": record.to_dict(),
            }
        )
    return found


def _distributions(probs: np.ndarray, gold: int) -> dict[str, Any]:
    return {
        "log_probs": (float(np.log(probs[gold])),),
        "large_probs": (tuple(p for p in probs.tolist() if p >= 0.05),),
        "kept_from": 0.05,
        "vocab_size": 4,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_choices(**changes: Any) -> ChoicesRecord:
    """A record of a doc with three choices."""
    fields = {
        "task": "t",
        "doc_id": 3,
        "doc_hash": "d",
        "prompt_hash": "p",
        "log_likelihoods": (-1.0, -2.0, -3.0),
        "gold": 0,
        "log_probs": (np.log(0.6), np.log(0.004)),
        "large_probs": ((0.6, 0.3), (0.9, 0.05)),
        "kept_from": 0.05,
        "vocab_size": 100,
        "certificate": {"backend": "x"},
    }
    return ChoicesRecord(**{**fields, **changes})
