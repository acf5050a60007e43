"""The command export, on runs as the harness writes them."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration import metrics
from lm_eval_calibration.reports import values
from lm_eval_calibration.reports.export.command import FORMATS
from lm_eval_calibration.results import load_run
from lm_eval_calibration.results.columns import columns

TASKS = {"anatomy_calibration": 40, "virology_calibration": 20}

CARD = """---
license: mit
model-index:
- name: old
  results:
  - task: {type: text-generation}
    dataset: {name: x, type: org/data, config: anatomy, split: test}
    metrics:
    - {type: acc, value: 0.5}
---

# My model

A text --- with a rule.
"""


WORDS = "zyzzyva quokka brobdingnagian"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a", tasks=TASKS, groups={"medicine": list(TASKS)}, text=WORDS)


@pytest.fixture(scope="module")
def exported(run: Path) -> dict[str, str]:
    """The run in every format."""
    loaded = load_run(run)
    found = list(values.values(loaded))
    return {form: write_as(loaded, found, "org/other") for form, write_as in FORMATS.items()}


def export(*arguments: object) -> Any:
    return run_command("export", *arguments)


@pytest.mark.slow
def test_a_model_card_is_what_the_hub_library_reads(run: Path, exported: dict[str, str]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(exported["model-card"]).data
    assert data.model_name == "org/other"
    found = {(r.dataset_name, r.metric_type): r for r in data.eval_results}
    assert len(found) == len(data.eval_results) == 3 * len(columns("all"))
    conf, correct = load_run(run).arrays("top_label", "anatomy_calibration")
    ece = found["anatomy_calibration", "ece"]
    assert ece.metric_value == pytest.approx(metrics.ece(conf, correct), abs=1e-6)
    assert (ece.dataset_type, ece.dataset_config, ece.dataset_split) == ("org/data", "anatomy", "test")
    assert ece.metric_args["n_docs"] == 40
    assert ece.metric_args["num_few_shot"] == 0
    low, high = metrics.ece_interval(conf, correct)
    assert ece.metric_args["interval_95_low"] == pytest.approx(low, abs=1e-6)
    assert ece.metric_args["interval_95_high"] == pytest.approx(high, abs=1e-6)
    assert found["medicine", "ece"].metric_args["n_docs"] == 60


def test_merging_keeps_the_card_and_replaces_what_it_wrote_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard

    monkeypatch.setattr(values, "columns", lambda table: ("acc", "ece"))
    run = write_run(tmp_path / "zero", tasks=TASKS, groups={"medicine": list(TASKS)})
    readme = tmp_path / "README.md"
    readme.write_text(CARD, encoding="utf-8")
    n = 3 * 2
    assert f"{n} results added, 0 replaced" in export(run, "--merge", readme).stderr
    once = readme.read_text(encoding="utf-8")
    assert f"0 results added, {n} replaced" in export(run, "--merge", readme).stderr
    assert readme.read_text(encoding="utf-8") == once
    five = write_run(tmp_path / "five", tasks=TASKS, shots=5, seed=1, groups={"medicine": list(TASKS)})
    assert f"{n} results added, 0 replaced" in export(five, "--merge", readme).stderr  # other shots, other results
    card = ModelCard(readme.read_text(encoding="utf-8"))
    assert card.data.license == "mit"
    assert card.data.model_name == "old"
    assert [r.metric_value for r in card.data.eval_results if r.metric_args is None] == [0.5]
    assert len(card.data.eval_results) == 2 * n + 1
    assert card.content.endswith("# My model\n\nA text --- with a rule.\n")


def test_csv_has_value_interval_and_null(run: Path, exported: dict[str, str]) -> None:
    lines = list(csv.DictReader(io.StringIO(exported["csv"])))
    assert len(lines) == 3 * len(columns("all"))
    ece = next(line for line in lines if (line["task"], line["metric"]) == ("medicine", "ece"))
    loaded = load_run(run)
    null = metrics.ece_null(*loaded.arrays("top_label"))
    assert float(ece["value"]) == loaded.metrics(names=["ece"])["ece"].value
    assert (float(ece["null_mean"]), float(ece["p_value"])) == (null.mean, null.p_value)
    assert next(line for line in lines if line["metric"] == "acc")["null_mean"] == ""


def test_every_eval_ever_has_what_its_schema_requires(exported: dict[str, str]) -> None:
    data = json.loads(exported["every-eval-ever"])
    assert set(data) >= {"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info"}
    names = {result["metric_config"]["metric_name"] for result in data["evaluation_results"]}
    assert names == set(columns("all")) - {"overconfidence"}
    for result in data["evaluation_results"]:
        config, score = result["metric_config"], result["score_details"]["score"]
        low, high = (float(config[end]) for end in ("min_score", "max_score"))
        assert low <= score <= high
        interval = result["score_details"]["uncertainty"].get("confidence_interval")
        if interval is None:  # too few right or wrong docs
            assert config["metric_name"] in {"aurc", "augrc", "auprc", "skill_score"}
            continue
        assert interval["lower"] <= score <= interval["upper"] or config["metric_name"] == "ece_debiased"
    assert all(isinstance(x, str) for r in data["evaluation_results"] for x in r["generation_config"].values() if not x)


def test_every_eval_ever_holds_against_its_own_schema(exported: dict[str, str]) -> None:
    package = pytest.importorskip("every_eval_ever", reason="every-eval-ever needs Python 3.12")
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(package.__file__).parent / "schemas" / "eval.schema.json"
    data = json.loads(exported["every-eval-ever"])
    jsonschema.validate(data, json.loads(schema.read_text(encoding="utf-8")))


def test_undefined_metrics_are_left_out_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "plain", tokenizer=None, tasks={"anatomy_calibration": 20})
    done = export(run)
    assert done.exit_code == 0, done.output
    assert "full_ece" not in done.stdout
    assert "note: undefined: full_ece (" in done.stderr
    assert "nan" not in done.stdout.lower()


def test_no_word_of_a_doc_comes_out(exported: dict[str, str]) -> None:
    for form, text in exported.items():
        assert not any(word in text for word in WORDS.split()), form


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere does not exist"),
        (["a", "--format", "xml"], "error: no format 'xml'; there are model-card, csv, every-eval-ever"),
        (["a", "--format", "csv", "--merge", "README.md"], "error: --merge belongs to --format model-card"),
        (["a", "--merge", "none.md"], "error: none.md is not a file"),
        (["a", "--merge", "bad.md"], "error: bad.md: "),
    ],
)
def test_errors_are_exit_code_2_and_write_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("a"), tasks={"anatomy_calibration": 20})
    Path("README.md").write_text(CARD, encoding="utf-8")
    Path("bad.md").write_text("---\nmodel-index: [{]\n---\n", encoding="utf-8")
    done = export(*arguments)
    assert done.exit_code == 2
    assert message in re.sub(r"\s+", " ", done.stderr)
    assert Path("README.md").read_text(encoding="utf-8") == CARD
    assert Path("bad.md").read_text(encoding="utf-8").startswith("---\nmodel-index: [{]")
