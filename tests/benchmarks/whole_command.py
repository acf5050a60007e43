"""What the command takes from its start to its table: ours against the stock one that reports accuracy only.

    python tests/benchmarks/whole_command.py [--limit 20] [--repeats 3] [--format safetensors gguf]
        [--device cpu] [--model_args pretrained=...,dtype=bfloat16]

`lm_eval run --tasks mmlu_anatomy` and `lm-eval-calibration run --tasks mmlu_anatomy_calibration` with the same other
arguments (samples logged by both) in processes of their own, alternating, on the demo's model (SmolLM2-135M). Its GGUF
file takes long to unpack, for both; so it is saved once as users have models, in safetensors, and that is run first.
`--model_args` names another model, which is run as it is.
Needs docs of MMLU in ../shared/data/hub, or the folder that LM_EVAL_CALIBRATION_HUB names. Printed for each format:
medians of the seconds and of the processor's seconds, and their ratios; the largest resident memory of each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import HUB

from lm_eval_calibration.demo import gguf_file

STOCK = ("lm_eval", "mmlu_anatomy")
OURS = ("lm_eval_calibration", "mmlu_anatomy_calibration")


class Run(NamedTuple):
    """One run of a command: seconds, the processor's seconds, largest resident memory in bytes, accuracy."""

    seconds: float
    processor: float
    memory: float
    acc: float


def save_as_safetensors(folder: Path) -> str:
    """Unpack the demo's model into a folder; return the model arguments."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    directory, file = (found := gguf_file(print)).parent, found.name
    loaded = AutoModelForCausalLM.from_pretrained(directory, gguf_file=file, dtype="float32")
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    model = LlamaForCausalLM(loaded.config)  # one that never was a GGUF file: those can't be saved
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(directory, gguf_file=file).save_pretrained(folder)
    return f"pretrained={folder},dtype=float32"


def arguments_of(kind: str, folder: Path) -> str:
    """Return the model arguments of the demo's model in a format; files made for it go into the folder."""
    if kind == "safetensors":
        return save_as_safetensors(folder)
    file = gguf_file(print)
    return f"pretrained={file.parent},gguf_file={file.name},dtype=float32"


def run(module: str, task: str, model_args: str, limit: int, device: str) -> Run:
    """Run a command in a process of its own."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            *(sys.executable, "-m", module, "run", "--model", "hf", "--model_args", model_args, "--device", device),
            *("--tasks", task, "--limit", str(limit), "--log_samples", "--output_path", output),
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=HUB, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{' '.join(command)} failed; run it by hand in {HUB}")
        (results,) = Path(output).rglob("results_*.json")
        acc = json.loads(results.read_text(encoding="utf-8"))["results"][task]["acc,none"]
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0, acc)


def main() -> None:
    """Run and print a row for each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--format", nargs="+", choices=["safetensors", "gguf"], default=["safetensors", "gguf"])
    parser.add_argument("--device", default="cpu", help="as of lm_eval run, such as cuda:0")
    parser.add_argument("--model_args", help="as of lm_eval run; then --format says nothing")
    options = parser.parse_args()
    if not HUB.is_dir():
        sys.exit(f"no benchmark data in {HUB}; LM_EVAL_CALIBRATION_HUB names a folder that holds cais/mmlu/")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ["the model given"] if options.model_args else options.format:
            model_args = options.model_args or arguments_of(kind, Path(folder))
            runs: dict[tuple[str, str], list[Run]] = {STOCK: [], OURS: []}
            for _ in range(options.repeats):
                for command, found in runs.items():
                    found.append(run(*command, model_args, options.limit, options.device))
            stock, ours = (Run(*map(statistics.median, zip(*found, strict=True))) for found in runs.values())
            print(
                f"{kind}, {options.limit} docs: {stock.seconds:.1f} s -> {ours.seconds:.1f} s "
                f"({ours.seconds / stock.seconds:.2f}), of a processor {stock.processor:.1f} s -> "
                f"{ours.processor:.1f} s ({ours.processor / stock.processor:.2f}), resident "
                f"{stock.memory / 1e6:.0f} MB -> {ours.memory / 1e6:.0f} MB, acc {stock.acc:.4f} = {ours.acc:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
