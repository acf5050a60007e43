"""How long `compare` takes for a leaderboard's worth of runs, and how much memory.

    python tests/benchmarks/leaderboard.py [--models 500] [--docs 14042] [--tasks 57] [--folder DIR]

Writes a run as the harness logs it (`after_the_run.py`), its numbers as Parquet, and as many others, whose
log-likelihoods are those of the first and noise (500 models x 14,042 docs need 1 GB of disk), then runs
`lm-eval-calibration compare` on the folder. Printed: its seconds, those of the processors, its largest
process; and, for a ratio that holds on other machines, the processor time in which pyarrow alone reads the files.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from after_the_run import PEAK_UNIT, make_samples, processor_time
from numpy.typing import NDArray

from lm_eval_calibration.records.parquet import STORED

TIME = "2026-01-01T00-00-00.000000"


def first_run(folder: Path, n_docs: int, n_tasks: int) -> dict[str, pa.Table]:
    """The numbers of a run, by task."""
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_calibration.records.jsonl import JsonLines
    from lm_eval_calibration.records.parquet import parquet_of, write_parquet
    from lm_eval_calibration.records.reading import read_batches

    tracker = EvaluationTracker(output_path=str(folder))
    tracker.date_id, tracker.general_config_tracker.model_name_sanitized = TIME, "first"
    samples: dict[str, list[dict[str, Any]]] = {}
    for sample in make_samples(n_docs):
        name = f"mmlu_subject_{sample['doc_id'] % n_tasks}_calibration"
        sample["calibration"]["task"] = name
        samples.setdefault(name, []).append(sample)
    tables = {}
    for name, of_task in samples.items():
        tracker.save_results_samples(name, of_task)
        path = folder / "first" / f"samples_{name}_{TIME}.jsonl"
        write_parquet(parquet_of(path), read_batches(JsonLines(path), with_names=True), path)
        tables[name] = pq.read_table(parquet_of(path))
    return tables


def with_noise(table: pa.Table, rng: np.random.Generator, spread: float) -> pa.Table:
    """The same docs, answered by another model."""
    z = np.array(table["log_likelihoods"].combine_chunks().flatten()).reshape(len(table), -1)
    z += rng.normal(0, spread, z.shape)
    probs = np.exp(z)
    probs /= probs.sum(1, keepdims=True) / rng.uniform(0.7, 1, (len(z), 1))
    gold = table["gold"].to_numpy()
    kept = probs >= 0.05
    columns: dict[str, Any] = {
        "confidence": probs.max(1) / probs.sum(1),
        "correct": (probs.argmax(1) == gold).astype(np.int64),
        "log_likelihoods": _lists(np.log(probs).ravel(), np.full(len(z), z.shape[1])),
        "log_probs": _lists(np.log(probs)[np.arange(len(z)), gold], np.ones(len(z), dtype=np.int64)),
        "large_probs": _lists(_lists(probs[kept], kept.sum(1)), np.ones(len(z), dtype=np.int64)),
    }
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values).cast(field.type))
    return table


def _lists(flat: Any, lengths: NDArray[np.int64]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(flat))


def write_runs(folder: Path, n_models: int, n_docs: int, n_tasks: int) -> None:
    """Folders of so many models, as `lm_eval --output_path` leaves them, the samples' texts deleted."""
    tables = first_run(folder, n_docs, n_tasks)
    shutil.rmtree(folder / "first")
    counts = {name: {"original": len(table), "effective": len(table)} for name, table in tables.items()}
    rng = np.random.default_rng(0)
    for i in range(n_models):
        place = folder / f"lab__model-{i}"
        place.mkdir(parents=True, exist_ok=True)
        spread = rng.uniform(0.1, 2)
        for name, table in tables.items():
            pq.write_table(with_noise(table, rng, spread), place / f"samples_{name}_{TIME}.parquet", **STORED)
        results = {"results": {name: {"alias": name} for name in tables}, "n-samples": counts}
        about = {
            "model_name": f"lab/model-{i}",
            "config": {"model": "hf", "model_args": {"pretrained": f"lab/model-{i}"}},
        }
        groups = {"group_subtasks": {"mmlu_calibration": list(tables)}}
        (place / f"results_{TIME}.json").write_text(json.dumps(results | about | groups))


def read_alone(folder: Path) -> float:
    """Processor time of reading what `compare` reads with nothing but pyarrow, one thread."""
    began = processor_time()
    for path in sorted(folder.rglob("*.parquet")):
        pq.ParquetFile(path).read(use_threads=False)
    return processor_time() - began


def main() -> None:
    """Write the runs and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--docs", type=int, default=14_042)
    parser.add_argument("--tasks", type=int, default=57)
    parser.add_argument("--folder", type=Path, help="keep the runs here and use those that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not any(folder.glob("lab__*")):
            write_runs(folder, options.models, options.docs, options.tasks)
        command = [sys.executable, "-m", "lm_eval_calibration", "compare", str(folder)]
        start, before = time.perf_counter(), os.times()
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, after = time.perf_counter() - start, os.times()
        of_processors = after.children_user + after.children_system - before.children_user - before.children_system
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * PEAK_UNIT / 1e6
        n_models, alone = len(list(folder.glob("lab__*"))), read_alone(folder)
        print("\n".join(out.splitlines()[:12]))
        print(
            f"{n_models} models: {seconds:.0f} s, of processors {of_processors:.0f} s, largest process {peak:.0f} MB;"
        )
        print(f"pyarrow alone reads the files in {alone:.1f} s of a processor: {of_processors / alone:.1f} times that")


if __name__ == "__main__":
    main()
