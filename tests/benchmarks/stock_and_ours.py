"""How long the calibrated run takes against the stock run that reports accuracy only, in one process.

    python tests/benchmarks/stock_and_ours.py [--repeats 5] [--docs 40] [--dtype float32]

Both runs go through the harness's own `simple_evaluate`, alternating, on two shapes of task from our own quiz:
single-token choices (letters, as in MMLU) and multi-token choices (the demo's). Printed: median seconds and their
ratio, log-likelihoods' largest difference per token, and docs whose answer differs.
"""

import argparse
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tiny import make_config, run_tasks

from lm_eval_calibration.demo import model_files
from lm_eval_calibration.demo.quiz import PARTS, load_quiz
from lm_eval_calibration.tasks import CalibratedTask

LETTERS = "Question: {{question}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
SHAPES = {
    "letters": {"doc_to_text": LETTERS, "doc_to_choice": ["A", "B", "C", "D"]},
    "answers": {"doc_to_text": "Question: {{question}}\nAnswer:"},
}


def compare(lm: Any, rows: list[dict[str, Any]], shape: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Alternate stock and calibrated runs; return medians and differences."""
    tasks = {
        "stock": ConfigurableTask(config=make_config(rows, task="stock", **shape)),
        "ours": CalibratedTask(make_config(rows, task="ours", **shape)),
    }
    seconds: dict[str, list[float]] = {"stock": [], "ours": []}
    samples = {}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            samples[name] = run_tasks(lm, [task], bootstrap_iters=1)["samples"][name]
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "ratio": medians["ours"] / medians["stock"], **differences(**samples)}


def differences(stock: list[Any], ours: list[Any]) -> dict[str, Any]:
    """Largest difference in log-likelihood per token, and docs whose answer differs, close calls among them."""
    largest, differing, close = 0.0, 0, 0
    for a, b in zip(stock, ours, strict=True):
        pairs = [(x[0], y[0], len(y.log_probs)) for (x,), (y,) in zip(a["resps"], b["resps"], strict=True)]
        seen = max(abs(x - y) for x, y, _ in pairs)
        largest = max(largest, *(abs(x - y) / n for x, y, n in pairs))
        if a["acc"] != b["acc"]:
            differing += 1
            first, second = sorted((x for x, _, _ in pairs), reverse=True)[:2]
            close += first - second <= 2 * seen
    return {"largest difference per token": largest, "docs that differ": differing, "of these close": close}


def main() -> None:
    """Run and print a row for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--docs", type=int, default=40, help="of each part of the quiz")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    directory, file = model_files()
    lm = HFLM(str(directory), gguf_file=file, dtype=options.dtype, device="cpu", batch_size=options.batch_size)
    rows = [row for part in PARTS for row in list(load_quiz(part)["test"])[: options.docs]]
    for name, shape in SHAPES.items():
        found = compare(lm, rows, shape, options.repeats)
        print(name, len(rows), "docs:", ", ".join(f"{key} {value:.4g}" for key, value in found.items()))


if __name__ == "__main__":
    main()
