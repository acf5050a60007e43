"""Commands on fixed runs, and ``run`` itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen.frozen_files import case, of_commands, plain
from users_tasks import SHAPES, make_rows, write_task

from lm_eval_calibration import load_run

FITTED = 1e-9
"""An optimizer stops where it stops."""


@dataclass(frozen=True)
class Place:
    """Where cases run (the fixed runs are in the current directory), the tiny models, what starts a Python program."""

    folder: Path
    gpt2: Any
    t5: Any
    python: Callable[[], list[str]]


@case()
def report(place: Place) -> dict[str, Any]:
    runs = {"good": "json md html svg png", "written": "json md", "corpus": "json md", "stock": "json md"}
    runs |= {"tuned": "json", "grid": "json", "subjects": "md html"}
    commands = [f"report {run} --output {run}.{form}" for run, forms in runs.items() for form in forms.split()]
    more = ["report subjects --n_bins 5 --redact --format json --output redacted.txt", "report good --output x.docx"]
    outputs = [f"{run}.{form}" for run, forms in runs.items() for form in forms.split()]
    return of_commands(*commands, *more, outputs=" ".join([*outputs, "redacted.txt"]))


@case()
def compare(place: Place) -> dict[str, Any]:
    forms = ("table", "md", "latex", "bibtex", "csv", "json", "html", "svg")
    return of_commands(
        *(f"compare good sharp --format {form} --metrics acc,ece,overconfidence" for form in forms),
        "compare good sharp --output compared.png",
        "compare good sharp elsewhere --format json",
        "compare a=good b=sharp --task medicine --task all --n_bins 5 --format json",
        "compare written written_other",
        "compare untuned tuned --format json",
        "compare good good",
        outputs="compared.png",
    )


@case()
def drift(place: Place) -> dict[str, Any]:
    pair = "drift good sharp --metrics acc,ece,auroc"
    return of_commands(
        *(f"{pair} --tolerance ece=0.01 --format {form}" for form in ("text", "json", "junit", "github")),
        f"{pair} --history runs.jsonl --picture runs.svg",
        "drift sharp good --history runs.jsonl --picture runs.html --format json --n_bins 5",
        "drift good elsewhere --format json",
        "drift good elsewhere --format junit",
        "drift written written_other",
        outputs="runs.jsonl runs.svg runs.html",
    )


@case()
def export(place: Place) -> dict[str, Any]:
    Path("CARD.md").write_text("---\nlicense: mit\n---\n\n# My model\n", encoding="utf-8")
    return of_commands(
        "export written --format model-card",
        "export good --format every-eval-ever",
        "export good --merge CARD.md --name org/other",
        "export stock --format csv --n_bins 5 --output exported.csv",
        "export corpus --format csv",
        outputs="CARD.md exported.csv",
    )


@case()
def evidence(place: Place) -> dict[str, Any]:
    return of_commands(
        "evidence good --domain exams --output statement",
        "evidence --verify statement.json good",
        "evidence --verify statement.json sharp",
        outputs="statement.json statement.html",
    )


@case(FITTED)
def recalibrate(place: Place) -> dict[str, Any]:
    methods = ("temperature", "platt", "isotonic", "beta", "histogram")
    return of_commands(
        *(f"recalibrate subjects --method {method} --output {method}.json" for method in methods),
        "recalibrate subjects --by task --error_rate 0.3 --output by_task.json",
        "recalibrate subjects --by doc.subject --folds 3 --n_bins 5",
        "recalibrate subjects --fit_on task=law",
        "recalibrate subjects_other --apply by_task.json",
        "recalibrate subjects --apply by_task.json",
        "recalibrate written --method platt --output written.map.json",
        "recalibrate written_other --apply written.map.json",
        "recalibrate written",
        "recalibrate grid --method token_temperature --output tokens.json",
        outputs=" ".join(f"{method}.json" for method in (*methods, "by_task", "written.map", "tokens")),
    )


@case(FITTED)
def confidences(place: Place) -> dict[str, Any]:
    return of_commands(
        *(f"confidences untuned tuned --format {form}" for form in ("json", "md", "svg")),
        "confidences untuned tuned --output confidences.png",
        "confidences before=good after=sharp --task anatomy_calibration --n_bins 5 --format json",
        "confidences written",
        outputs="confidences.png",
    )


@case()
def tasks(place: Place) -> dict[str, Any]:
    redacted = "run --model dummy --redact --write_out --tasks letters_calibration"
    return of_commands("tasks", "tasks --list", "tasks --for letters", "run", redacted, "--version")


@case()
def run_redacted_and_not(place: Place) -> dict[str, Any]:
    """The harness's own command and its files."""
    folder = place.folder / "few_too"
    folder.mkdir()
    write_task(folder, "letters", make_rows(6), **SHAPES["letters"])
    asked = f"run --model dummy --include_path {folder} --tasks letters_calibration"
    found = of_commands(f"{asked} --output_path plain", f"{asked} --output_path redacted --redact")
    for name in ("plain", "redacted"):
        (samples,) = Path(name).rglob("samples_*.jsonl")
        Path(f"{name}.jsonl").write_bytes(samples.read_bytes())
        (results,) = Path(name).rglob("results_*.json")
        Path(f"{name}.json").write_bytes(results.read_bytes())
    files = of_commands(outputs="plain.jsonl redacted.jsonl plain.json redacted.json")
    for name in ("plain.json", "redacted.json"):
        content = files["numbers"][name]["content"]
        files["numbers"][name] = {key: content[key] for key in ("results", "n-samples", "higher_is_better", "versions")}
        files["numbers"][name]["keys"] = sorted(content)
        files["numbers"][name]["config_keys"] = sorted(content["configs"]["letters_calibration"])
    return {part: {**found[part], **files[part]} for part in found}


@case()
def loaded_runs(place: Place) -> dict[str, Any]:
    """What ``load_run`` gives in Python."""
    found = {}
    for name in ("good", "stock", "corpus"):
        run = load_run(name)
        found[name] = {
            "n": len(run),
            "tasks": list(run.tasks),
            "left_out": dict(run.left_out),
            "metrics": {key: list(value) for key, value in run.metrics().items()},
        }
    return {"numbers": plain(found), "texts": {}}
