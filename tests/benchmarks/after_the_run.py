"""How long the logged samples of a run take to become all core metrics, and how much memory.

    python tests/benchmarks/after_the_run.py [--docs 14042 100000 1000000] [--bins 10 20] [--folder DIR]

Writes a `samples_*.jsonl` with the harness's own writer (four choices a doc, the shape of 0-shot MMLU, some 4 KB a
line; 1,000,000 docs need 4 GB of disk in a temporary folder), then reads it and computes every core metric with its
standard error in a fresh process. Printed: seconds (reading, metrics, together, and the processor's, which a busy
machine does not lengthen as much), peak memory above the imports, and bytes kept for each doc.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
    """The samples of so many docs, written by the harness."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    tracker.date_id, tracker.general_config_tracker.model_name_sanitized = "x", f"docs_{n_docs}"
    path = folder / f"docs_{n_docs}" / "samples_mmlu_calibration_x.jsonl"
    if not path.exists():
        tracker.save_results_samples("mmlu_calibration", make_samples(n_docs))
    return path


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


def measure(path: Path, n_bins: int) -> dict[str, Any]:
    """All core metrics and standard errors of a samples file, in this process."""
    import scipy.sparse
    import sklearn.exceptions

    from lm_eval_calibration.metrics import CATALOG, CORE
    from lm_eval_calibration.records import read_columns

    assert scipy.sparse
    assert sklearn.exceptions
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    columns = read_columns(path, n_bins=n_bins)
    read, peak_read = time.perf_counter(), peak()
    found: dict[str, Any] = {}
    for name in CORE:
        metric, began = CATALOG[name], time.perf_counter()
        options = {"n_bins": n_bins} if metric.takes_n_bins else {}
        arrays = columns.arrays(metric.kind)
        found[name] = metric.value(*arrays, **options), metric.stderr(*arrays, **options), time.perf_counter() - began
    end = time.perf_counter()
    return {
        "reading s": read - start,
        "metrics s": end - read,
        "together s": end - start,
        "of a processor s": time.process_time() - cpu,
        "peak MB": (peak() - before) / MEGABYTE,
        "peak reading MB": (peak_read - before) / MEGABYTE,
        "bytes a doc": columns.nbytes / len(columns),
        "metrics": found,
    }


def main() -> None:
    """Write the files, measure each in a process of its own and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, nargs="+", default=[14_042, 100_000, 1_000_000])
    parser.add_argument("--bins", type=int, nargs="+", default=[10])
    parser.add_argument("--folder", type=Path, help="keep the files here and use those that are there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.bins[0])))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for n_docs in options.docs:
            path = write_samples(folder, n_docs)
            for n_bins in options.bins:
                command = [sys.executable, __file__, "--measure", str(path), "--bins", str(n_bins)]
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                metrics = found.pop("metrics")
                print(f"{n_docs} docs, {n_bins} bins,", f"{path.stat().st_size / MEGABYTE:.0f} MB:", end=" ")
                print(", ".join(f"{key} {value:.3g}" for key, value in found.items()))
                print("   ", ", ".join(f"{n} {v:.5f} ± {e:.5f} ({s:.2f} s)" for n, (v, e, s) in metrics.items()))


if __name__ == "__main__":
    main()
