"""Runs as the harness writes them, ours and stock, without a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Generation, GenerationRecord

TIME = "2026-01-01T10-00-00.000001"


def make_lines(task: str, n: int = 40, *, seed: int = 0, k: int = 4, text: str = "Which?") -> list[dict[str, Any]]:
    """Lines of a calibrated multiple-choice task whose confidence is about twice too sure."""
    rng, lines = np.random.default_rng([seed, *task.encode()]), []
    for i in range(n):
        z = rng.normal(0, 1.5, k)
        gold = int(rng.choice(k, p=np.exp(z) / np.exp(z).sum()))
        log_likelihoods = (2 * z - max(4, 2 * z.max())).tolist()  # none is positive
        reference = float(min(-0.01, log_likelihoods[gold]))
        record = ChoicesRecord(
            task=task,
            doc_id=i,
            doc_hash=f"{task}-{seed}-{i}",
            prompt_hash=f"prompt {i}",
            log_likelihoods=tuple(log_likelihoods),
            gold=gold,
            log_probs=(reference,),
            large_probs=((float(np.exp(reference)),) if np.exp(reference) >= 0.05 else (),),
            kept_from=0.05,
            vocab_size=100,
            certificate={"backend": "hf"},
        )
        stock = stock_line(i, f"{text} {i}", log_likelihoods, gold)
        lines.append({**stock, "doc_hash": record.doc_hash, RECORD_KEY: record.to_dict()})
    return lines


def make_generated_lines(task: str, n: int = 120, *, seed: int = 0, empty: int = 0) -> list[dict[str, Any]]:
    """Lines of a generation task that says 90% on average and is right 40% of the time; the first answers are empty."""
    rng, lines = np.random.default_rng([seed, *task.encode()]), []
    for i in range(n):
        log_probs = () if i < empty else tuple(np.log(rng.uniform(0.8, 1, 5)).tolist())
        generation = Generation(f"text {i}", "exact_match", "none", int(rng.random() < 0.4 and i >= empty), log_probs)
        record = GenerationRecord(
            task=task, doc_id=i, doc_hash=f"{task}-{seed}-{i}", prompt_hash=f"prompt {i}", generation=generation
        )
        lines.append(
            {
                "doc_id": i,
                "doc": {"question": f"Why {i}?"},
                "resps": [[f"Because {i}"]],
                "filter": "none",
                "filtered_resps": [f"Because {i}"],
                "target": "So",
                "doc_hash": record.doc_hash,
                "prompt_hash": record.prompt_hash,
                RECORD_KEY: record.to_dict(),
            }
        )
    return lines


def stock_line(i: int, question: str, log_likelihoods: Sequence[float], gold: int, **more: Any) -> dict[str, Any]:
    """A line as the stock task of such a question writes it."""
    letters = "ABCDEFG"[: len(log_likelihoods)]
    return {
        "doc_id": i,
        "doc": {"question": question, "answer": gold},
        "target": str(gold),
        "arguments": {f"gen_args_{j}": {"arg_0": question, "arg_1": f" {x}"} for j, x in enumerate(letters)},
        "resps": [[[str(x), "False"]] for x in log_likelihoods],
        "filtered_resps": [[str(x), "False"] for x in log_likelihoods],
        "filter": "none",
        "doc_hash": f"hash {i}",
        "prompt_hash": f"prompt {i}",
        "acc": float(int(np.argmax(log_likelihoods)) == gold),
        **more,
    }


def write_run(
    folder: Path,
    tasks: dict[str, list[dict[str, Any]]],
    *,
    time: str = TIME,
    model: str = "org/model",
    groups: dict[str, list[str]] | None = None,
    **results: Any,
) -> Path:
    """Write a run's files into folder/model; return the folder."""
    inside = folder / model.replace("/", "__")
    inside.mkdir(parents=True, exist_ok=True)
    for task, lines in tasks.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (inside / f"samples_{task}_{time}.jsonl").write_text(text, encoding="utf-8")
    data = {
        "results": {task: {"acc,none": float("nan")} for task in tasks},
        "group_subtasks": groups or {},
        "configs": {task: {"metadata": {"calibration": {"n_bins": 10}}} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "n-samples": {task: {"original": 100, "effective": len(lines)} for task, lines in tasks.items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "limit": None, "random_seed": 0},
        "model_name": model,
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.0.0",
        **results,
    }
    (inside / f"results_{time}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder
