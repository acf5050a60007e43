"""What a calibrated run costs against the stock run that reports accuracy only: time, memory, and the same answers.

    OMP_NUM_THREADS=1 python tests/benchmarks/stock_and_ours.py [--work mmlu-5 mmlu-0 medqa-0] [--model smollm2 262k]
        [--docs 60] [--repeats 3] [--batch-size 8] [--dtype float32] [--subject anatomy]

With `--device cuda --model_args pretrained=...,dtype=bfloat16 --tasks mmlu_anatomy --batch_size 16` it measures three
arms on a GPU and prints a table to paste: see three_arms.py.

Both runs go through the harness's own `simple_evaluate` in one process, alternating, on docs of MMLU and MedQA (in
../shared/data/hub, or the folder that LM_EVAL_CALIBRATION_HUB names). `smollm2` is the demo's model; `262k` has random
weights, 270M of them, and the shape of Gemma 3 270M, with SmolLM2's tokenizer. Printed for each work:

- counted: operations that ours must spend at least / that stock must;
- time, and processor time: ratios of medians. With one thread the latter holds where others use the machine too;
- memory: ratio of peaks above the loaded model, of the process's resident memory sampled every 5 ms: what the system
  had to give, the allocator's caches included;
- log-likelihoods' largest difference per token; docs whose answer differs, and those of them whose two best choices
  are closer in stock's run than twice the difference seen.
"""

import argparse
import ctypes
import gc
import itertools
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"

import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tiny import run_tasks

from lm_eval_calibration.backends.hf import cost, sharing, trial
from lm_eval_calibration.demo import gguf_file
from lm_eval_calibration.harness.stock import stock_config
from lm_eval_calibration.tasks import CalibratedTask

HUB = Path(os.environ.get("LM_EVAL_CALIBRATION_HUB", Path(__file__).parents[3] / "shared" / "data" / "hub"))
WORK = {"mmlu-5": ("mmlu_{subject}", 5), "mmlu-0": ("mmlu_{subject}", 0), "medqa-0": ("medqa_4options", 0)}


def load(name: str, dtype: str, batch_size: int) -> Any:
    """Return the backend with one of the two models."""
    directory, file = (found := gguf_file(print)).parent, found.name
    lm = HFLM(str(directory), gguf_file=file, dtype=dtype, device="cpu", batch_size=batch_size)
    if name == "smollm2":
        return lm
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    size = {"hidden_size": 640, "num_hidden_layers": 18, "intermediate_size": 2048, "vocab_size": 262144}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**size, **heads)).to(getattr(torch, dtype)).eval()
    return HFLM(pretrained=model, tokenizer=lm.tokenizer, device="cpu", batch_size=batch_size, max_length=8192)


class PeakMemory:
    """The process's largest resident memory while this is open, above what it was at the start; in bytes."""

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.start = self.peak = self.now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, self.now())

    def now(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def above(self) -> int:
        return self.peak - self.start


def compare(lm: Any, name: str, shots: int, docs: int, repeats: int) -> dict[str, Any]:
    """Alternate stock and calibrated runs; return ratios, differences and what is counted."""
    makers: dict[str, Callable[[], Any]] = {
        "stock": lambda: ConfigurableTask(config=stock_config(name)),
        "ours": lambda: CalibratedTask({"stock_task": name, "task": f"{name}_calibration"}),
    }
    seconds: dict[str, list[float]] = {key: [] for key in makers}
    processor: dict[str, list[float]] = {key: [] for key in makers}
    memory: dict[str, list[int]] = {key: [] for key in makers}
    samples: dict[str, Any] = {}
    for _ in range(repeats):
        for key, make in makers.items():
            task = make()
            with PeakMemory() as peak:
                start, start_processor = time.perf_counter(), time.process_time()
                run = run_tasks(lm, [task], num_fewshot=shots, limit=docs, bootstrap_iters=1)
                seconds[key].append(time.perf_counter() - start)
                processor[key].append(time.process_time() - start_processor)
            memory[key].append(peak.above)
            (samples[key],) = run["samples"].values()
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    work = {key: statistics.median(values) for key, values in processor.items()}
    peaks = {key: statistics.median(values) / 2**20 for key, values in memory.items()}
    return {
        "counted": counted(lm, prompts(name, shots, docs)),
        "time": medians["ours"] / medians["stock"],
        "processor time": work["ours"] / work["stock"],
        "memory": peaks["ours"] / peaks["stock"],
        "stock s": medians["stock"],
        "ours s": medians["ours"],
        "stock MiB": peaks["stock"],
        "ours MiB": peaks["ours"],
        **differences(samples["stock"], samples["ours"]),
    }


def prompts(name: str, shots: int, docs: int) -> list[tuple[str, str]]:
    """Return the (context, continuation) pairs of a stock task."""
    task = ConfigurableTask(config=stock_config(name))
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=docs, rank=0, world_size=1)
    return [instance.args for instance in task.instances]


def counted(lm: Any, prompts: list[tuple[str, str]]) -> float:
    """Return operations of ours / of stock: the layers' matrix products, attention, and the output layer.

    Stock reads each distinct (context + continuation without its last token), and computes logits for every token.
    Ours reads each token of a pack once (and a few more, on trial), and a logit where one is scored.
    """
    pairs = [lm._encode_pair(*prompt) for prompt in prompts]
    scored = {(*context, *continuation)[:-1]: len(continuation) for context, continuation in pairs}
    rows = list(scored)
    best = sharing.cheapest(cost.model_of(lm.model, lm.model.config), cost.CPU, list(scored.items()), 8)
    steps = list(best.plan.all_steps()) if best else []
    new = [(len(step.tokens), sum(step.positions) / len(step.tokens) + 1) for step in steps]
    alone = [(len(rows[i]), len(rows[i]) / 2) for i in (best.plan.alone if best else range(len(rows)))]
    tried = [(size.tokens, size.part) for size in ([trial.size_of(best.plan.tokens)] if best else [])]

    config = lm.model.config
    head = lm.model.get_output_embeddings().weight.numel()
    layers = sum(
        p.numel() for n, p in lm.model.named_parameters() if p.dim() == 2 and "embed" not in n and "head" not in n
    )
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)

    def operations(parts: list[tuple[int, float]], logits: int) -> float:
        attention = sum(4 * n * keys * width * config.num_hidden_layers for n, keys in parts)
        return 2 * layers * sum(n for n, _ in parts) + attention + 2 * head * logits

    tokens = sum(map(len, rows))
    stock = operations([(len(row), len(row) / 2) for row in rows], tokens)
    return operations([*new, *alone, *tried], sum(scored.values())) / stock


def differences(stock: list[Any], ours: list[Any]) -> dict[str, Any]:
    """Largest difference in log-likelihood per token, and docs whose answer differs, close calls among them."""
    largest, differing, close = 0.0, 0, 0
    for a, b in zip(stock, ours, strict=True):
        pairs = [(x[0], y[0], len(y.log_probs)) for (x,), (y,) in zip(a["resps"], b["resps"], strict=True)]
        seen = max(abs(x - y) for x, y, _ in pairs)
        largest = max(largest, *(abs(x - y) / n for x, y, n in pairs))
        best = [max(range(len(pairs)), key=lambda i, which=which: pairs[i][which]) for which in (0, 1)]
        if best[0] != best[1]:
            differing += 1
            first, second = sorted((x for x, _, _ in pairs), reverse=True)[:2]
            close += first - second <= 2 * seen
    return {"largest difference per token": largest, "docs that differ": differing, "of these close": close}


def main() -> None:
    """Run and print a row for each model and work; with a device's options, its three arms."""
    if any(argument.split("=")[0] in ("--model_args", "--device", "--tasks", "--size") for argument in sys.argv[1:]):
        import three_arms

        sys.exit(three_arms.main(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--model", nargs="+", choices=["smollm2", "262k"], default=["smollm2", "262k"])
    parser.add_argument("--subject", default="anatomy", help="of MMLU")
    parser.add_argument("--docs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--count-only", action="store_true", help="run nothing: what it must cost, by docs and shots")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    if not HUB.is_dir():
        sys.exit(f"no benchmark data in {HUB}; LM_EVAL_CALIBRATION_HUB names a folder that holds cais/mmlu/ and others")
    os.chdir(HUB)  # the harness reads a local directory of a data set's name first
    for model in options.model:
        lm = load(model, options.dtype, options.batch_size)
        for shots, docs in itertools.product((0, 1, 5), (10, 30, 100, 300)) if options.count_only else ():
            name = f"mmlu_{options.subject}"
            print(model, f"{shots} shots, up to {docs} docs: {counted(lm, prompts(name, shots, docs)):.3f}", flush=True)
        for work in () if options.count_only else options.work:
            name, shots = WORK[work]
            found = compare(lm, name.format(subject=options.subject), shots, options.docs, options.repeats)
            print(model, work, ", ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)
        del lm


if __name__ == "__main__":
    main()
