"""What the confidence of the final answer costs beside generation: processor time of ours against the stock run.

    OMP_NUM_THREADS=1 python tests/benchmarks/final_answers.py [--docs 12] [--repeats 3] [--tokens 96] [--batch-size 4]

The demo's model writes chains of thought for sums of our own, in the harness's `simple_evaluate`, stock and ours in
turn in one process. Ours finds where each answer stands, which tokens it has, and (option `chain`) the 20 most probable
tokens of every position; no reference is scored, which the stock run doesn't do either. Printed: the ratio of processor
times, medians over the repeats; and that the texts are equal.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tiny import run_tasks

from lm_eval_calibration.demo import gguf_file
from lm_eval_calibration.tasks import CalibratedTask


def config(n_docs: int, n_tokens: int, **calibration: Any) -> dict[str, Any]:
    """Return a task of sums that are to be thought about."""
    from datasets import Dataset

    rows = [{"question": f"What is {17 + 3 * i} + {8 + 5 * i}?", "answer": str(25 + 8 * i)} for i in range(n_docs)]
    number = {"function": "regex", "regex_pattern": r"-?\d+", "group_select": -1}
    return {
        "task": "sums",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Q: {{question}}\nA: Let's think step by step.",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["Q:"], "max_gen_toks": n_tokens, "do_sample": False},
        "filter_list": [{"name": "last", "filter": [number, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"calibration": {"reference": "", **calibration}},
    }


def seconds_of(lm: Any, task: Any) -> tuple[float, list[str]]:
    """Return the processor time of a run, and its texts."""
    start = time.process_time()
    results = run_tasks(lm, [task], bootstrap_iters=0)
    seconds = time.process_time() - start
    (samples,) = results["samples"].values()
    return seconds, [str(line["resps"][0][0]) for line in samples]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("docs", 12), ("repeats", 3), ("tokens", 96), ("batch-size", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    directory, file = (found := gguf_file(print)).parent, found.name
    lm = HFLM(str(directory), gguf_file=file, dtype="float32", device="cpu", batch_size=given.batch_size)
    makers = {
        "stock": lambda: ConfigurableTask(config={**config(given.docs, given.tokens), "metadata": {"version": 0}}),
        "ours": lambda: CalibratedTask(config(given.docs, given.tokens)),
        "ours with chain": lambda: CalibratedTask(config(given.docs, given.tokens, chain=32)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    texts: dict[str, list[str]] = {}
    seconds_of(lm, makers["stock"]())  # the first run of a process is slower
    for _ in range(given.repeats):
        for name, make in makers.items():
            spent, texts[name] = seconds_of(lm, make())
            seconds[name].append(spent)
    stock = statistics.median(seconds["stock"])
    for name, spent in seconds.items():
        print(f"{name}: {statistics.median(spent):.2f} s, {statistics.median(spent) / stock:.3f} of stock")
    print("texts are equal:", all(found == texts["stock"] for found in texts.values()))


if __name__ == "__main__":
    main()
