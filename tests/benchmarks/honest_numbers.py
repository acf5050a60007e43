"""Time of all intervals and nulls at MMLU's size: 14,042 docs of four choices.

    python tests/benchmarks/honest_numbers.py [--docs 14042] [--core] [--repeats 3]

Prints the median of the repeats of each, in milliseconds of processor time, the sums over the core metrics (``--core``:
these alone) and over all, and the process' largest memory. Asked: 14,042 docs under 5 s; 1,000,000 under 60 s, 1.5 GB.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from lm_eval_calibration import metrics


def median_ms(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1000 * (time.process_time() - start))
    return sorted(times)[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=14_042)
    parser.add_argument("--core", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    n = options.docs
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, 4))
    powers = np.exp(logits)
    truth = powers / powers.sum(axis=1, keepdims=True)
    labels = np.minimum((rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1), 3)
    probs = powers**2 / (powers**2).sum(axis=1, keepdims=True)
    arrays = {
        "top_label": (probs.max(axis=1), probs.argmax(axis=1) == labels),
        "choices": (probs, labels),
        "full_vocabulary": (metrics.position_gap_sums(probs, labels), np.ones(n, dtype=np.int64)),
    }
    sums = {"core": 0.0, "all": 0.0}
    print(f"{'':22}{'interval':>10}{'null':>10}  ms, {n:,} docs")
    for name, metric in metrics.CATALOG.items():
        if options.core and name not in metrics.CORE:
            continue
        data, null = arrays[metric.kind], metric.null
        interval_ms = median_ms(lambda metric=metric, data=data: metric.interval(*data), options.repeats)
        if null is None:
            null_ms = 0.0
        elif name == "smece":  # once is enough
            null_ms = median_ms(lambda null=null, data=data: null(*data), 1)
        else:
            null_ms = median_ms(lambda null=null, data=data: null(*data), options.repeats)
        print(f"{name:22}{interval_ms:10.1f}{null_ms:10.1f}", flush=True)
        sums["all"] += interval_ms + null_ms
        sums["core"] += (interval_ms + null_ms) * (name in metrics.CORE)
    print(f"core metrics: {sums['core'] / 1000:.2f} s; all: {sums['all'] / 1000:.2f} s")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
