"""A leaderboard's worth of runs: measured one by one, each tested against the best of a column."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from logged_runs import TIME
from made_runs import write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.reports.compare import command
from lm_eval_calibration.results import compare_runs

NAMES = ["acc", "brier_score", "ece", "auroc"]
TASKS = {"anatomy_calibration": 120, "virology_calibration": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("board")
    for i in range(24):
        write_run(parent / f"run{i:02}", model=f"org/model{i:02}", tasks=TASKS, seed=i % 6, sharpness=0.6 + i / 2)
    return parent


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MANY_RUNS", 4)


def compare(*arguments: object) -> Any:
    done = run_command("compare", *arguments, "--metrics", ",".join(NAMES), "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done


def test_values_and_tests_are_those_of_two_runs(folder: Path) -> None:
    data, _ = compare(folder)
    rows = data["tasks"][0]["runs"]
    assert len(rows) == 24
    accuracies = [row["acc"]["value"] for row in rows.values()]
    assert accuracies == sorted(accuracies, reverse=True)
    n_tests = sum(pair["p_value"] is not None for pair in data["pairs"])
    assert data["n_tests"] == n_tests == 23 * len(NAMES)
    for pair in data["pairs"][::7]:
        runs = [load_run(folder / f"run{label[-2:]}") for label in (pair["a"], pair["b"])]
        for run, label in zip(runs, (pair["a"], pair["b"]), strict=True):
            found = run.metrics(names=[pair["metric"]])[pair["metric"]]
            cell = rows[label][pair["metric"]]
            shown = [cell[name] for name in ("value", "low", "high")]
            assert shown == pytest.approx([found.value, found.low, found.high], abs=1e-12)
        compared = compare_runs(*(run.records for run in runs), names=[pair["metric"]]).pooled
        assert compared is not None
        expected = compared.differences[pair["metric"]]
        shown = [pair[name] for name in ("difference", "low", "high", "p_value")]
        assert shown == pytest.approx([expected.difference, expected.low, expected.high, expected.p_value], abs=1e-12)
        assert pair["p_adjusted"] == pytest.approx(min(1, pair["p_value"] * n_tests))


def test_the_best_and_those_not_shown_to_be_worse_are_marked(folder: Path) -> None:
    data, _ = compare(folder)
    rows = data["tasks"][0]["runs"]
    for name in NAMES:
        p_values = {pair["b"]: pair["p_adjusted"] for pair in data["pairs"] if pair["metric"] == name}
        best = {pair["a"] for pair in data["pairs"] if pair["metric"] == name}
        assert len(best) == 1
        assert rows[best.pop()][name]["mark"] == "best"
        for label, p in p_values.items():
            assert (rows[label][name]["mark"] == "") == (p <= 0.05)
    assert any(row["ece"]["mark"] == "" for row in rows.values())
    assert "against the best" in data["legend"]


def test_groups_and_tasks_are_shown_where_they_are_named(folder: Path) -> None:
    data, _ = compare(folder, "--task", "virology_calibration", "--task", "all")
    assert [task["task"] for task in data["tasks"]] == ["virology_calibration", "all"]
    assert data["tasks"][0]["runs"]["model00"]["n_docs"] == 80


def test_models_go_by_their_new_names(folder: Path) -> None:
    data, done = compare(folder, "--rename", "org/model03=The third")
    rows = data["tasks"][0]["runs"]
    assert "The third" in rows
    assert "model03" not in rows
    assert len(rows) == 24
    assert "--rename" not in done.output


def test_a_terminal_shows_the_best_and_a_page_all(folder: Path, tmp_path: Path) -> None:
    text = run_command("compare", folder, "--metrics", "acc,ece").stdout
    assert sum(line.startswith("model") for line in text.splitlines()) == 21  # with the head
    assert "(the best 20 of 24 runs by acc: --output with .html to search all" in text
    page = tmp_path / "board.html"
    assert run_command("compare", folder, "--metrics", "acc,ece", "--output", page).exit_code == 0
    content = page.read_text()
    assert content.count('<th scope="row">model') == 24
    assert 'type="search"' in content
    assert "Every two runs" not in content


def test_what_is_broken_or_has_other_docs_is_named_and_the_others_are_compared(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "board"
    shutil.copytree(folder, here)
    write_run(here / "other", model="org/other", tasks={name: n // 2 for name, n in TASKS.items()}, seed=1)
    for samples in (here / "run03").rglob("samples_*"):
        samples.write_text(samples.read_text()[:500])
    data, done = compare(here)
    rows = data["tasks"][0]["runs"]
    assert "model03" not in rows
    assert "left out" in done.stderr
    assert "run03" in done.stderr
    assert rows["other"]["ece"]["mark"] == ""
    assert "its docs are not those of model00" in rows["other"]["ece"]["reason"]
    assert any("1 run has docs that are not tested" in note for note in data["notes"])
    assert not any("other" in (pair["a"], pair["b"]) for pair in data["pairs"])
    assert all(math.isfinite(rows["other"][name]["value"]) for name in NAMES)


def test_a_run_without_a_task_leaves_it_out_of_all(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "board"
    shutil.copytree(folder, here)
    write_run(here / "less", model="org/less", tasks={"anatomy_calibration": 120}, seed=1)
    data, _ = compare(here)
    assert [task["task"] for task in data["tasks"]] == ["anatomy_calibration"]
    assert data["tasks"][0]["runs"]["less"]["n_docs"] == 120
    assert "not in every run and left out: virology_calibration" in data["notes"]


def test_docs_in_another_order_are_the_same_docs(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "board"
    shutil.copytree(folder, here)
    before, _ = compare(here)
    for samples in (here / "run05").rglob(f"samples_*{TIME[:4]}*.jsonl"):
        lines = [json.loads(line) for line in samples.read_text().splitlines()]
        ids = [line["calibration"]["doc_id"] for line in lines]
        for line, doc_id in zip(lines, reversed(ids), strict=True):
            line["calibration"]["doc_id"] = doc_id
        samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    after, _ = compare(here)
    for one, other in zip(before["pairs"], after["pairs"], strict=True):
        if one["metric"] != "auroc":
            assert (one["a"], one["b"]) == (other["a"], other["b"])
        assert one["p_value"] == pytest.approx(other["p_value"], abs=1e-9)


def test_two_runs_of_the_same_files_are_refused(folder: Path, tmp_path: Path) -> None:
    paths = [folder / f"run{i:02}" for i in range(6)]
    done = run_command("compare", *paths, paths[0])
    assert done.exit_code == 2
    assert "same files" in done.output


def test_one_folder_of_few_runs_is_all_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MANY_RUNS", 30)
    done = run_command("compare", folder, "--model", "model0[0-2]", "--metrics", "acc", "--format", "json")
    assert sorted(json.loads(done.stdout)["runs"]) == ["model00", "model01", "model02"]
