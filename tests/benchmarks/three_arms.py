"""Three arms on one device: a stock run, ours with shared prefixes, ours without; a Markdown table to paste.

    python tests/benchmarks/stock_and_ours.py --model_args pretrained=...,dtype=bfloat16 --device cuda \\
        --tasks mmlu_anatomy --batch_size 16 [--num_fewshot 5] [--limit 135] [--repeats 3] [--reference_docs 8]

Without `--model_args` a Llama of random weights is made on the device (`--size 8b`, `1b` or `tiny`), without `--tasks`
it gets questions of our own: no hub is needed. Stock runs have `softmax_dtype=float32`. One warm-up of each arm, then
the arms in alternating order, times from synchronised device to synchronised device. Peak memory is above the weights,
as the allocator counts it. Transfers to the host are counted in a run of their own. Errors are of log-likelihoods, per
token, against the same weights in float32. The estimate is what `backends/hf/cost.py` counts for the calls on this
device (any GPU is taken for an H100): where it and the time part, one of them is to be looked into. A second table has
the estimate's parts, each as if there were no other, and the operations that were launched, counted with the transfers.

Exit code 1, and the reason: an arm that fell back to another path, a larger error than stock's (twice, or 1e-4), an
answer that differs from stock's and is no close call.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tiny import make_config, make_rows, make_tokenizer, run_tasks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lm_eval_calibration.backends.hf import cost, sharing
from lm_eval_calibration.backends.hf.packed import text_config
from lm_eval_calibration.harness.stock import stock_config
from lm_eval_calibration.records import RECORD_KEY
from lm_eval_calibration.tasks import CalibratedTask

ARMS = ("stock", "ours, shared", "ours, not shared")

SIZES = {
    "8b": (4096, 14336, 32, 32, 8, 128256),  # the shape of Llama 3 8B
    "1b": (2048, 8192, 16, 32, 8, 128256),  # of Llama 3.2 1B
    "tiny": (64, 128, 2, 4, 2, 1000),
}


class Run(NamedTuple):
    """One run of an arm."""

    seconds: float
    peak: int  # bytes above the weights; 0 where the device's allocator doesn't count
    samples: list[dict[str, Any]]


class Estimate(NamedTuple):
    """What the cost model counts of an arm."""

    seconds: float
    parts: cost.Parts
    calls: int
    tokens: int
    launches: int


class Found(NamedTuple):
    """What an arm's runs showed."""

    runs: list[Run]
    transfers: int
    launches: int
    error: tuple[float, float]  # largest and mean, per token
    differing: tuple[int, int]  # docs whose answer is not stock's; close calls among them
    estimate: Estimate

    @property
    def samples(self) -> list[dict[str, Any]]:
        return self.runs[0].samples

    @property
    def seconds(self) -> float:
        return statistics.median(one.seconds for one in self.runs)


class Counting(TorchDispatchMode):
    """Counts what the host waits for (copies to it, single values) and launches (operations but views)."""

    transfers = launches = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        aten = torch.ops.aten
        on_device = any(isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in tree_leaves(arguments))
        to_host = function is aten._to_copy.default and str(options.get("device")) == "cpu"
        to_host |= function is aten.copy_.default and arguments[0].device.type == "cpu"
        self.transfers += on_device and (to_host or function is aten._local_scalar_dense.default)
        self.launches += not function.is_view and function.overloadpacket is not aten._unsafe_view
        return function(*arguments, **options)


def random_model(size: str, dtype: torch.dtype, device: str) -> Any:
    """A Llama of random weights, made on the device; its output layer is scaled, else all answers were near ties."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers, heads, kv_heads, vocab_size = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab_size, max_position_embeddings=8192, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        model.lm_head.weight *= 10
    return model


def load(options: argparse.Namespace, **more: Any) -> HFLM:
    """The backend, its softmax in float32."""
    common = {"device": options.device, "batch_size": options.batch_size, "softmax_dtype": "float32"}
    if options.model_args:
        return HFLM.create_from_arg_string(options.model_args, {**common, **more})
    model = random_model(options.size, getattr(torch, options.dtype), options.device)
    return HFLM(pretrained=model, tokenizer=make_tokenizer(), max_length=8192, **common)


def in_float32(lm: HFLM, options: argparse.Namespace) -> HFLM:
    """The same weights in float32."""
    if options.model_args:
        kept = [pair for pair in options.model_args.split(",") if not pair.startswith("dtype=")]
        plain = argparse.Namespace(**{**vars(options), "model_args": ",".join([*kept, "dtype=float32"])})
        return load(plain)
    model = copy.deepcopy(lm.model).float()
    return HFLM(
        pretrained=model, tokenizer=lm.tokenizer, max_length=8192, device=options.device, batch_size=options.batch_size
    )


def tasks_of(name: str | None, arm: str) -> Any:
    """A new task: the harness builds the requests of each only once."""
    calibration = {"metadata": {"calibration": {"shared_prefixes": arm != ARMS[2]}}}
    if name is not None:
        if arm == ARMS[0]:
            return ConfigurableTask(config=stock_config(name))
        return CalibratedTask({"stock_task": name, "task": f"{name}_calibration", **calibration})
    from datasets import Dataset

    rows = make_rows(200, ragged=False)

    def splits(**_: Any) -> dict[str, Any]:
        return {"test": Dataset.from_list(rows[8:]), "dev": Dataset.from_list(rows[:8])}

    config = make_config(rows, "own_questions", custom_dataset=splits)
    if arm == ARMS[0]:
        return ConfigurableTask(config=config)
    return CalibratedTask({**config, "task": "own_questions_calibration", **calibration})


def run(lm: HFLM, names: list[str | None], arm: str, shots: int, limit: int) -> Run:
    """Run an arm once."""
    tasks = [tasks_of(name, arm) for name in names]
    on_cuda = lm.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(lm.device)
        torch.cuda.reset_peak_memory_stats(lm.device)
    before = torch.cuda.memory_allocated(lm.device) if on_cuda else 0
    start = time.perf_counter() if lm.device.type != "cpu" else time.process_time()
    found = run_tasks(lm, tasks, num_fewshot=shots, limit=limit, bootstrap_iters=0)
    if on_cuda:
        torch.cuda.synchronize(lm.device)
    end = time.perf_counter() if lm.device.type != "cpu" else time.process_time()
    peak = torch.cuda.max_memory_allocated(lm.device) - before if on_cuda else 0
    samples = [s for of_task in found["samples"].values() for s in sorted(of_task, key=lambda s: int(s["doc_id"]))]
    return Run(end - start, peak, samples)


def certificates(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each doc of an arm of ours was scored."""
    return [sample[RECORD_KEY]["certificate"] for sample in samples]


def log_likelihoods(samples: list[dict[str, Any]]) -> list[list[float]]:
    """Of each doc, its choices'."""
    return [[float(answer[0]) for (answer,) in sample["resps"]] for sample in samples]


def errors(samples: list[Any], reference: list[Any], lengths: list[list[int]]) -> tuple[float, float]:
    """Largest and mean error per token, over the docs of the reference."""
    of_docs = zip(log_likelihoods(samples), log_likelihoods(reference), lengths, strict=False)
    found = [abs(a - b) / n for ours, exact, tokens in of_docs for a, b, n in zip(ours, exact, tokens, strict=True)]
    return max(found), statistics.mean(found)


def changed(stock: list[Any], ours: list[Any]) -> tuple[int, int]:
    """Docs whose answer differs, and close calls among them: two best choices nearer than twice the difference."""
    differing = close = 0
    for a, b in zip(log_likelihoods(stock), log_likelihoods(ours), strict=True):
        if a.index(max(a)) != b.index(max(b)):
            differing += 1
            first, second = sorted(a, reverse=True)[:2]
            close += first - second <= 2 * max(abs(x - y) for x, y in zip(a, b, strict=True))
    return differing, close


def estimates(lm: HFLM, samples: list[Any], batch_size: int) -> dict[str, Estimate]:
    """What the arms' calls take by the cost model."""
    pairs = [lm._encode_pair(*request[:2]) for sample in samples for request in sample["arguments"]]
    scored = {(*context, *continuation)[:-1]: len(continuation) for context, continuation in pairs}
    lengths, n_scored = [len(row) for row in scored], list(scored.values())
    model, device = cost.model_of(lm.model, text_config(lm)), cost.device_of(lm.device)
    plain = list(cost.plain_calls(lengths, n_scored, batch_size))
    best = sharing.cheapest(model, device, list(scored.items()), batch_size)
    shared = list(sharing.shared_calls(best.plan, device)) if best else plain
    if best and best.plan.alone:
        alone = best.plan.alone
        shared += cost.plain_calls([lengths[i] for i in alone], [n_scored[i] for i in alone], batch_size)
    of_arms = (list(cost.stock_calls(lengths, batch_size)), shared, plain)
    return {
        arm: Estimate(
            cost.seconds(model, device, calls),
            cost.sum_of_parts(model, device, calls),
            len(calls),
            sum(call.tokens for call in calls),
            sum(call.launches * model.layers for call in calls),
        )
        for arm, calls in zip(ARMS, of_arms, strict=True)
    }


def about(lm: HFLM, options: argparse.Namespace) -> str:
    """Device, driver, versions, model, work."""
    device = "CPU"
    if lm.device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            driver = "unknown"
        device = f"{torch.cuda.get_device_name(lm.device)}, driver {driver}, CUDA {torch.version.cuda}"
    packages = ("torch", "transformers", "lm-eval", "lm-eval-calibration")
    model = options.model_args or f"random weights, shape {options.size}, {options.dtype}"
    return (
        f"{device}; {', '.join(f'{name} {version(name)}' for name in packages)}; {model}; attention "
        f"{getattr(lm.model.config, '_attn_implementation', 'unknown')}; {options.tasks or 'questions of our own'}, "
        f"{options.num_fewshot} shots, up to {options.limit} docs a task, batch size {options.batch_size}"
    )


def faults(arm: str, of_all: dict[str, Found]) -> list[str]:
    """What is wrong with an arm of ours."""
    ours, stock, found = of_all[arm], of_all[ARMS[0]], []
    of_docs = [certificate for one in ours.runs for certificate in certificates(one.samples)]
    shared = [bool(certificate["shared_prefixes"]) for certificate in of_docs]
    if (arm == ARMS[1]) != any(shared):
        found.append(f"{arm}: {sum(shared)} of {len(shared)} docs shared prefixes: it fell back")
    if any(certificate["distributions"] != "exact" for certificate in of_docs):
        found.append(f"{arm}: not all docs have whole distributions: it fell back")
    if not ours.error[0] <= max(2 * stock.error[0], 1e-4):
        found.append(f"{arm}: error {ours.error[0]:.2g} per token, stock's is {stock.error[0]:.2g}")
    differing, close = ours.differing
    if differing > close:
        found.append(f"{arm}: {differing - close} answers differ from stock's and are no close calls")
    return found


def main(arguments: list[str]) -> int:
    """Run all arms, print the table; return the exit code."""
    options = parse(arguments)
    names: list[str | None] = options.tasks.split(",") if options.tasks else [None]
    lm = load(options)
    work = (options.num_fewshot, options.limit)
    for arm in ARMS:
        run(lm, names, arm, options.num_fewshot, min(4, options.limit))
    runs: dict[str, list[Run]] = {arm: [] for arm in ARMS}
    for repeat in range(options.repeats):
        for arm in ARMS if repeat % 2 == 0 else reversed(ARMS):
            runs[arm].append(run(lm, names, arm, *work))
    counted = {}
    for arm in ARMS:
        with Counting() as counted[arm]:
            run(lm, names, arm, *work)
    reference = run(in_float32(lm, options), names[:1], ARMS[0], options.num_fewshot, options.reference_docs).samples
    lengths = [[len(answer.log_probs) for (answer,) in sample["resps"]] for sample in runs[ARMS[1]][0].samples]
    stock = runs[ARMS[0]][0].samples
    estimated = estimates(lm, stock, options.batch_size)
    found = {
        arm: Found(
            runs[arm],
            counted[arm].transfers,
            counted[arm].launches,
            errors(runs[arm][0].samples, reference, lengths),
            changed(stock, runs[arm][0].samples),
            estimated[arm],
        )
        for arm in ARMS
    }
    print(f"{about(lm, options)}.\n\n{table(found)}\n\n{table_of_parts(found)}")
    wrong = [fault for arm in ARMS[1:] for fault in faults(arm, found)]
    print("\n" + ("\n".join(wrong) or "No arm fell back; no answer differs but close calls."))
    return int(bool(wrong))


HEADS = (
    "arm",
    "seconds",
    "/ stock",
    "estimated seconds",
    "peak memory above the weights (MiB)",
    "transfers to the host",
    "largest (mean) error per token",
    "answers that differ (close calls)",
    "docs with shared prefixes",
)


def table(found: dict[str, Found]) -> str:
    """The Markdown table."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for arm, of_arm in found.items():
        peak = max(one.peak for one in of_arm.runs) / 2**20
        shared = "" if arm == ARMS[0] else sum(bool(c["shared_prefixes"]) for c in certificates(of_arm.samples))
        cells = (
            arm,
            f"{of_arm.seconds:.3g}",
            f"{of_arm.seconds / found[ARMS[0]].seconds:.2f}",
            f"{of_arm.estimate.seconds:.3g}",
            f"{peak:.0f}" if peak else "",
            of_arm.transfers,
            f"{of_arm.error[0]:.2g} ({of_arm.error[1]:.2g})",
            f"{of_arm.differing[0]} ({of_arm.differing[1]})",
            shared,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def table_of_parts(found: dict[str, Found]) -> str:
    """What the estimates are made of, as a Markdown table."""
    parts = " | ".join(f"{name.replace('_', ' ')} (s)" for name in cost.Parts._fields)
    head = f"| estimate of | calls | tokens | {parts} | operations of the layers | operations launched (counted) |"
    lines = [head, "|" + "---|" * (len(cost.Parts._fields) + 5)]
    for arm, of_arm in found.items():
        estimate = of_arm.estimate
        seconds = (f"{part:.3g}" for part in estimate.parts)
        cells = (arm, estimate.calls, estimate.tokens, *seconds, estimate.launches, of_arm.launches)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_args", default="", help="as in `lm_eval run`; without: random weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tasks", default="", help="stock multiple-choice tasks; without: questions of our own")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_fewshot", type=int, default=5)
    parser.add_argument("--limit", type=int, default=135)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reference_docs", type=int, default=8)
    parser.add_argument("--size", choices=list(SIZES), default="8b", help="of the random model")
    parser.add_argument("--dtype", default="bfloat16", help="of the random model")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
