"""What the pass over the logits costs against `logsumexp`, and how it grows with the vocabulary.

    python tests/benchmarks/full_ece_pass.py [--threads 1 2] [--rows 256] [--repeats 7]

Median seconds per row, alternating in one process, float32: the pass of `distributions.py` (log-sum-exp, largest
entry, every probability of at least 0.01), and what `summarize` adds to it (the stock run's log-softmax at the scored
positions, results on the host); one call of `torch.logsumexp`; a blocked logsumexp that keeps its block in the cache;
a plain float64 softmax and histogram, which is what the pass replaces. The number of bins is no argument of the pass.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from lm_eval_calibration.backends.hf import distributions
from lm_eval_calibration.backends.hf.distributions import one_pass, summarize

VOCABULARIES = (32_000, 50_257, 128_256, 262_144)


def blocked_logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """Four passes over a block that fits the cache: one read of the memory."""
    step = max(1, distributions._BLOCK_ELEMENTS // logits.shape[1])
    work = torch.empty(min(step, len(logits)), logits.shape[1])
    parts = []
    for block in logits.split(step):
        top = block.amax(-1, keepdim=True)
        parts.append(torch.sub(block, top, out=work[: len(block)]).exp_().sum(-1).log_() + top[:, 0])
    return torch.cat(parts)


def softmax_and_histogram(logits: torch.Tensor, n_bins: int = 10) -> torch.Tensor:
    """The mass of each bin the plain way, 16 rows at a time (its intermediates are 3 times the float64 logits)."""
    mass = torch.zeros(n_bins, dtype=torch.float64)
    for block in logits.split(16):
        p = block.double().softmax(-1).flatten()
        mass += torch.bincount((p * n_bins).long().clamp_(max=n_bins - 1), weights=p, minlength=n_bins)
    return mass


def medians(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Alternate the works; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Print a row for each number of threads and vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("threads vocabulary | us per row: pass, summarize, logsumexp, blocked, histogram | pass / the last three")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for vocab_size in VOCABULARIES:
            logits = torch.randn(options.rows, vocab_size, generator=torch.Generator().manual_seed(0)) * 3
            rows = torch.arange(options.rows)
            works: dict[str, Callable[[], object]] = {
                "pass": lambda z=logits: one_pass(z),
                "summarize": lambda z=logits, r=rows: summarize(z, r, r),
                "logsumexp": lambda z=logits: z.logsumexp(-1),
                "blocked": lambda z=logits: blocked_logsumexp(z),
                "histogram": lambda z=logits: softmax_and_histogram(z),
            }
            found = medians(works, options.repeats)
            times = ", ".join(f"{value / options.rows * 1e6:.0f}" for value in found.values())
            ratios = ", ".join(f"{found['pass'] / found[name]:.2f}" for name in ("logsumexp", "blocked", "histogram"))
            print(f"{threads} {vocab_size:>7} | {times} | {ratios}", flush=True)


if __name__ == "__main__":
    main()
