"""How long the logged samples of a run take to become all core metrics, and how much memory.

    python tests/benchmarks/after_the_run.py [--docs 14042 100000 1000000] [--bins 10 20] [--folder DIR]

Writes a `samples_*.jsonl` with the harness's own writer (four choices a doc, the shape of 0-shot MMLU, some 4 KB a
line; 1,000,000 docs need 4 GB of disk in a temporary folder) with the numbers as Parquet beside, then reads either and
computes every core metric with its standard error in a fresh process; and, where polars is installed, the values alone
as one would write them with `polars.scan_ndjson` and NumPy. Printed: seconds (reading, together, and the processors',
which a busy machine does not lengthen as much), peak memory above the imports, and bytes kept for each doc.
"""

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

MEGABYTE = 1e6
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
SUBJECTS = 57
WORDS = ["the", "of", "energy", "law", "a", "in", "which", "number", "is", "not", "most", "cell", "court", "given"]


def make_samples(n_docs: int) -> Iterator[dict[str, Any]]:
    """Samples as `evaluate` returns them, from an overconfident model; ids come in no order, as from several ranks."""
    from lm_eval_calibration.records import ChoicesRecord

    rng, words = np.random.default_rng(0), random.Random(0)
    certificate = {"backend": "HFLM", "distributions": "exact", "dtype": "float32", "shared_prefixes": True}
    certificate |= {"tokenizer": "a/tokenizer", "versions": {"lm-eval-calibration": "0", "transformers": "5.0.0"}}
    for doc_id in rng.permutation(n_docs).tolist():
        z = rng.normal(0, 1.5, 4)
        gold = int(rng.choice(4, p=np.exp(z) / np.exp(z).sum()))
        letters = np.exp(2 * z) / np.exp(2 * z).sum() * rng.uniform(0.7, 1)  # the rest of the vocabulary has some too
        question, *choices = (" ".join(words.choices(WORDS, k=k)) for k in (60, 8, 8, 8, 8))
        prompt = "\n".join(
            [question, *(f"{letter}. {c}" for letter, c in zip("ABCD", choices, strict=True)), "Answer:"]
        )
        log_likelihoods = np.log(letters).tolist()
        record = ChoicesRecord(
            task=f"mmlu_subject_{doc_id % SUBJECTS}_calibration",
            doc_id=doc_id,
            doc_hash=f"{doc_id:064x}",
            prompt_hash=f"{doc_id:064x}",
            log_likelihoods=tuple(log_likelihoods),
            gold=gold,
            log_probs=(log_likelihoods[gold],),
            large_probs=(tuple(letters[letters >= 0.05].tolist()),),
            kept_from=0.05,
            vocab_size=49152,
            certificate=certificate,
        )
        responses = [(x, x == max(log_likelihoods)) for x in log_likelihoods]
        yield {
            "doc_id": doc_id,
            "doc": {"question": question, "subject": record.task, "choices": choices, "answer": gold},
            "target": gold,
            "arguments": [(prompt, f" {letter}") for letter in "ABCD"],
            "resps": [[pair] for pair in responses],
            "filtered_resps": responses,
            "filter": "none",
            "metrics": ["acc", "brier_score", "ece", "ace", "full_ece", "auroc"],
            "doc_hash": record.doc_hash,
            "prompt_hash": record.prompt_hash,
            "target_hash": f"{gold:064x}",
            "acc": float(record.correct or 0),
            "calibration": record.to_dict(),
        }


def write_samples(folder: Path, n_docs: int) -> Path:
    """The samples of so many docs, written by the harness, with their numbers as Parquet beside."""
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_calibration.records.jsonl import JsonLines
    from lm_eval_calibration.records.parquet import parquet_of, write_parquet
    from lm_eval_calibration.records.reading import read_batches

    tracker = EvaluationTracker(output_path=str(folder))
    tracker.date_id, tracker.general_config_tracker.model_name_sanitized = "x", f"docs_{n_docs}"
    path = folder / f"docs_{n_docs}" / "samples_mmlu_calibration_x.jsonl"
    if not path.exists():
        tracker.save_results_samples("mmlu_calibration", make_samples(n_docs))
    if not parquet_of(path).exists():
        write_parquet(parquet_of(path), read_batches(JsonLines(path), with_names=True), path)
    return path


def peak() -> int:
    """The largest resident memory of this process so far, in bytes, and of those that read with it."""
    of_all = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of_all) * PEAK_UNIT


def processor_time() -> float:
    """Seconds that processors worked for this process and those that read with it."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def ours(path: Path, n_bins: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Every core metric with its standard error, and how long the file took to read."""
    from lm_eval_calibration.metrics import CATALOG, CORE
    from lm_eval_calibration.records import read_columns

    start = time.perf_counter()
    columns = read_columns(path, n_bins=n_bins)
    about = {"reading s": time.perf_counter() - start, "bytes a doc": columns.nbytes / len(columns)}
    found: dict[str, Any] = {}
    for name in CORE:
        metric, began = CATALOG[name], time.perf_counter()
        options = {"n_bins": n_bins} if metric.takes_n_bins else {}
        arrays = columns.arrays(metric.kind)
        found[name] = metric.value(*arrays, **options), metric.stderr(*arrays, **options), time.perf_counter() - began
    return about, found


def plainly(path: Path, n_bins: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The values alone, as one writes them with polars and NumPy for docs that all have four choices."""
    import polars as pl

    start = time.perf_counter()
    record = pl.Struct({"log_likelihoods": pl.List(pl.Float64), "gold": pl.Int64})
    frame = pl.scan_ndjson(path, schema={"calibration": record}).unnest("calibration").collect()
    about = {"reading s": time.perf_counter() - start}
    logits, gold = np.array(frame["log_likelihoods"].to_list()), frame["gold"].to_numpy()
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    hits = np.eye(probs.shape[1])[gold]
    confidence, correct = probs.max(1), (probs.argmax(1) == gold).astype(float)
    in_bin = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    ranks = np.empty(len(correct))
    ranks[np.argsort(confidence)] = np.arange(1, len(correct) + 1)
    n_right = correct.sum()
    classes = [np.argsort(column) for column in probs.T]
    gaps = [np.array_split((probs - hits)[order, k], n_bins) for k, order in enumerate(classes)]
    found = {
        "brier_score": ((probs - hits) ** 2).sum(1).mean(),
        "ece": np.abs(np.bincount(in_bin, confidence - correct, n_bins)).sum() / len(correct),
        "ace": np.mean([[abs(part.mean()) for part in parts] for parts in gaps]),
        "auroc": (ranks[correct == 1].sum() - n_right * (n_right + 1) / 2) / (n_right * (len(correct) - n_right)),
    }
    return about, {name: (float(value), math.nan, 0.0) for name, value in found.items()}


def measure(path: Path, n_bins: int, *, is_plain: bool) -> dict[str, Any]:
    """The core metrics of a samples file, in this process."""
    import scipy.sparse
    import sklearn.exceptions

    assert scipy.sparse
    assert sklearn.exceptions
    before, start, cpu = peak(), time.perf_counter(), processor_time()
    about, found = (plainly if is_plain else ours)(path, n_bins)
    end = time.perf_counter()
    return {
        **about,
        "together s": end - start,
        "of processors s": processor_time() - cpu,
        "peak MB": (peak() - before) / MEGABYTE,
        "metrics": found,
    }


def main() -> None:
    """Write the files, measure each in a process of its own and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, nargs="+", default=[14_042, 100_000, 1_000_000])
    parser.add_argument("--bins", type=int, nargs="+", default=[10])
    parser.add_argument("--folder", type=Path, help="keep the files here and use those that are there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plainly", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.bins[0], is_plain=options.plainly)))
        return
    ways = [("JSONL", ".jsonl", []), ("Parquet", ".parquet", [])]
    ways += [("polars", ".jsonl", ["--plainly"])] if find_spec("polars") else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for n_docs in options.docs:
            path = write_samples(folder, n_docs)
            for n_bins, (name, suffix, how) in product(options.bins, ways):
                file = path.with_suffix(suffix)
                command = [sys.executable, __file__, "--measure", str(file), "--bins", str(n_bins), *how]
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                metrics = found.pop("metrics")
                print(f"{name}: {n_docs} docs, {n_bins} bins,", f"{file.stat().st_size / MEGABYTE:.0f} MB:", end=" ")
                print(", ".join(f"{key} {value:.3g}" for key, value in found.items()))
                print("   ", ", ".join(f"{n} {v:.5f} ± {e:.5f} ({s:.2f} s)" for n, (v, e, s) in metrics.items()))


if __name__ == "__main__":
    main()
