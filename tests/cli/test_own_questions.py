"""``run --csv``: from a file to a table, and again with the stock command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run_command

from lm_eval_calibration.cli.own_questions import task_name

WARD = "question,a,b,c,answer,ward\n" + "".join(
    f"Which number is {i}?,{i},{i + 1},{i + 2},{'ABC'[0]},{('icu', 'er')[i % 2]}\n" for i in range(12)
)
CSV = ["--csv", "ward.csv", "--question", "question", "--options", "a,b,c", "--answer", "answer", "--group", "ward"]


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(folder / "hf")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def rows(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("|")]


def samples(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.rglob("samples_*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_one_command_and_the_stock_command_after_it(tmp_path: Path) -> None:
    """Both import for themselves what they need: the stock command knows of ours what the task file says."""
    (tmp_path / "ward.csv").write_text(WARD, encoding="utf-8")
    run = [sys.executable, "-m", "lm_eval_calibration", "run", *CSV, "--model", "dummy"]
    ours = call(tmp_path, *run, "--output_path", "ours")
    assert ours.returncode == 0, ours.stderr
    said = ours.stderr.splitlines()
    assert said[0] == "12 questions of ward.csv, answers as letter"
    assert said[1].startswith("Task file ours/tasks/ward_calibration.yaml, for the stock command: lm_eval run ")
    assert said[-1].startswith("Next: lm-eval-calibration recalibrate ours/")
    assert said[-1].endswith("--by doc.ward")
    assert len(said[:2]) + ours.stdout.index("|ward") - len(ours.stdout[: ours.stdout.index("|ward")]) <= 12
    stock = said[1].split("for the stock command: ")[1].split()
    script = str(Path(sys.executable).parent / stock[0])
    again = call(tmp_path, script, *stock[1:], "--model", "dummy", "--output_path", "stock", "--log_samples")
    assert again.returncode == 0, again.stderr
    assert rows(again.stdout) == rows(ours.stdout)
    assert {s["doc"]["ward"] for s in samples(tmp_path / "ours")} == {"icu", "er"}
    by_ward = run_command("recalibrate", tmp_path / "ours", "--by", "doc.ward")
    assert by_ward.exit_code == 0, by_ward.output


@pytest.mark.slow
def test_a_redacted_run_keeps_the_fields_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ward.csv").write_text(WARD, encoding="utf-8")
    for folder, extra in ("kept", ["--keep", "ward"]), ("bare", []):
        done = run_command("run", *CSV, "--model", "dummy", "--redact", "--output_path", folder, *extra)
        assert done.exit_code == 0, done.output
        assert ("--redact leaves ward out, too; --keep ward keeps it" in done.stderr) == (folder == "bare")
        logged = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / folder).rglob("*.json*"))
        assert "Which number" not in logged
        assert ("icu" in logged) == (folder == "kept")
    assert {tuple(s["doc"].items()) for s in samples(tmp_path / "kept")} == {(("ward", "icu"),), (("ward", "er"),)}
    assert run_command("recalibrate", tmp_path / "kept", "--by", "doc.ward").exit_code == 0
    refused = run_command("recalibrate", tmp_path / "bare", "--by", "doc.ward")
    assert refused.exit_code == 2
    assert (
        "the run was redacted (--redact) and kept no field ward: run it again with --redact --keep ward"
        in refused.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--question", "q", "--tasks", "x"], "--question says what is in a file of questions: name it, --csv FILE"),
        (["--keep", "ward", "--tasks", "x"], "--keep says what --redact keeps"),
        (["--csv", "ward.csv", "--tasks", "x"], "--csv and --tasks each name what to run"),
        (["--csv", "ward.csv", "--group", "wrad"], "ward.csv has no column 'wrad' (did you mean ward?)"),
        (
            ["--csv", "ward.csv", "--redact", "--answer", "ward"],
            "ward.csv row 1 (line 2), column ward: it can't be used",
        ),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ward.csv").write_text(WARD, encoding="utf-8")
    done = run_command("run", *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "lm_eval_results").exists()


def test_names_of_tasks() -> None:
    assert task_name("data/Ward 3 (new).csv") == "ward_3_new_calibration"
    assert task_name("org/name:config") == "org_name_config_calibration"
    assert task_name("wikitext.csv") == "wikitext_questions_calibration"
