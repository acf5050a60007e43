"""Runs of ``lm-eval-calibration tune`` on a tiny model, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from lm_eval_calibration.cli import app
from lm_eval_calibration.tasks import CalibrationTaskManager

METRIC = """
import zlib

def is_lucky(references, predictions, **_):
    number = zlib.crc32(f"{references[0]} {predictions[0]}".encode())
    return 0.5 if references[0] in ("7", "8") else float(number % 2)
"""
"""Whether an answer is right looks like chance; two of them are neither right nor wrong."""

OPEN_TASK = """
task: trees
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/docs.jsonl}}
  cache_dir: {folder}/cache
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{number}}}}"
generation_kwargs: {{until: ["\\n\\n\\n"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - metric: !function luck.is_lucky
    aggregation: mean
    higher_is_better: true
"""


def write_open_task(folder: Path) -> None:
    """Write the task `trees`: 60 docs to which the model writes answers."""
    docs = [json.dumps({"question": f"Name tree {i * i} of {i}:", "number": str(i)}) for i in range(60)]
    (folder / "docs.jsonl").write_text("\n".join(docs), encoding="utf-8")
    (folder / "luck.py").write_text(METRIC, encoding="utf-8")
    (folder / "trees.yaml").write_text(OPEN_TASK.format(folder=folder), encoding="utf-8")


def with_lines(task: Path, folder: Path, *lines: str) -> Path:
    """Copy a task's files into a folder, with more lines in its YAML."""
    folder.mkdir(exist_ok=True)
    for path in task.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    yaml = folder / "trees.yaml"
    yaml.write_text("\n".join([yaml.read_text(encoding="utf-8"), *lines]), encoding="utf-8")
    return folder


def arguments(model: Path, tasks: Path, output: Path, *more: str, has_fraction: bool = True) -> list[str]:
    """The command's arguments."""
    return [
        *("tune", "--model", str(model), "--tasks", "trees", "--include_path", str(tasks), "--device", "cpu"),
        *("--output", str(output), *(("--fit-fraction", "0.6") if has_fraction else ()), *more),
    ]


def tune(model: Path, tasks: Path, output: Path, *more: str, has_fraction: bool = True) -> str:
    """Run the command; return what it prints."""
    command = arguments(model, tasks, output, *more, has_fraction=has_fraction)
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(model: Path, tasks: Path, output: Path, *more: str, has_fraction: bool = True) -> str:
    """Run a command that fails and leaves no adapter; return the one line with which it ends."""
    existed = (output / "adapter_model.safetensors").exists()
    command = arguments(model, tasks, output, *more, has_fraction=has_fraction)
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 2, result.output
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert (output / "adapter_model.safetensors").exists() == existed
    return error


def validations(output: Path) -> list[dict[str, float]]:
    """The validations that a finished run has written."""
    result: list[dict[str, float]] = json.loads((output / "tuning.json").read_text("utf-8"))["result"]["validation"]
    return result


def graded_lines(output: Path) -> list[dict[str, Any]]:
    """The answers that a run has kept."""
    return [json.loads(line) for line in (output / "graded.jsonl").read_text(encoding="utf-8").splitlines()[1:]]


def harness_samples(model: Path, tasks: Path, docs: list[int], **options: Any) -> Any:
    """What the harness logs of these docs for P(true)."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    name = "trees_p_true_calibration"
    results = simple_evaluate(
        model=HFLM(pretrained=str(model), device="cpu", batch_size=8, **options),
        tasks=[name],
        task_manager=CalibrationTaskManager(include_path=str(tasks), include_defaults=False),
        samples={name: docs},
        bootstrap_iters=0,
    )
    return results["samples"][name]
