"""Folders of many runs: which is meant, and what there is to choose from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from changed_files import results_of
from commands import run_command as invoke
from logged_runs import make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.results import Selection


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for model in range(5):
        for month in range(1, 13):
            tasks = {task: make_lines(task, 6, seed=model) for task in ("law", "tax")}
            write_run(folder, tasks, model=f"org/model-{model}", time=f"2026-{month:02}-01T10-00-00.0")
    return folder


def test_the_error_lists_what_there_is(many: Path) -> None:
    done = invoke("report", str(many))
    assert done.exit_code == 2
    assert "holds 60 runs of 5 models" in done.stderr
    assert "org/model-4 (12 runs, 2026-01-01T10-00-00.0 to 2026-12-01T10-00-00.0: law, tax)" in done.stderr
    assert all(option in done.stderr for option in ("--latest", "--model PATTERN", "--task PATTERN"))


@pytest.mark.slow
def test_the_answer_needs_no_library_that_takes_seconds(many: Path) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from lm_eval_calibration.cli import app;"
        f"app(['report', {str(many)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "holds 60 runs of 5 models" in done.stderr
    slow = {"torch", "lm_eval", "transformers", "sklearn", "scipy.stats", "scipy.optimize", "pandas", "matplotlib"}
    assert not slow & set(done.stdout.split())


@pytest.mark.parametrize("pattern", ["org/model-3", "model-3", "*-3", "MODEL-3", "-3"])
def test_a_run_is_chosen(many: Path, pattern: str) -> None:
    run = load_run(many, select=Selection(latest=True, model=pattern, task="la*"))
    assert (run.model, run.tasks, len(run)) == ("org/model-3", ("law",), 6)
    assert run.configuration.dates == ["2026-12-01T10-00-00.0"]


@pytest.mark.parametrize("option", [["--model", "xyz"], ["--task", "xyz"]])
def test_what_matches_nothing_is_named(many: Path, option: list[str]) -> None:
    done = invoke("report", str(many), *option)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {option[0]} xyz: there are the ")


def test_runs_are_listed(many: Path, tmp_path: Path) -> None:
    done = invoke("runs", str(many), "--model", "model-2", "--format", "json")
    listed = json.loads(done.stdout)
    assert len(listed) == 12
    first = {key: listed[0][key] for key in ("model", "date", "tasks", "docs", "settings")}
    assert first == {
        "model": "org/model-2",
        "date": "2026-01-01T10-00-00.0",
        "tasks": ["law", "tax"],
        "docs": 12,
        "settings": "hf, 0-shot",
    }
    assert len(load_run(listed[0]["path"])) == 12
    for form, n_lines in (("table", 61), ("csv", 61), ("md", 62)):
        assert len(invoke("runs", str(many), "--format", form).stdout.splitlines()) == n_lines
    assert invoke("runs", str(tmp_path)).exit_code == 2


def test_compare_takes_patterns_and_the_latest_run_of_each_model(many: Path) -> None:
    done = invoke("compare", str(many), "--latest", "--task", "la*", "--metrics", "acc", "--format", "csv")
    assert done.exit_code == 0
    rows = [line.split(",")[:2] for line in done.stdout.splitlines()[1:]]
    assert rows == [["law", f"model-{i}"] for i in range(5)]


def test_a_group_is_a_choice_of_tasks(tmp_path: Path) -> None:
    tasks = {task: make_lines(task, 6) for task in ("law", "tax", "art")}
    folder = write_run(tmp_path, tasks, groups={"all": ["money", "art"], "money": ["law", "tax"]})
    assert load_run(folder, select=Selection(task="money")).tasks == ("law", "tax")


def test_a_group_of_which_a_part_is_wanted_is_no_group(tmp_path: Path) -> None:
    tasks = {task: make_lines(task, 6) for task in ("law", "tax", "art")}
    folder = write_run(tmp_path, tasks, groups={"all": ["money", "art"], "money": ["law", "tax"]})
    assert load_run(folder, select=Selection(task="law")).groups == {}
    assert load_run(folder, select=Selection(task="money")).groups == {"money": ("law", "tax")}


def test_a_group_that_is_wanted_is_one_without_its_broken_task_too(tmp_path: Path) -> None:
    tasks = {task: make_lines(task, 6) for task in ("law", "tax", "art")}
    folder = write_run(tmp_path, tasks, groups={"all": ["money", "art"], "money": ["law", "tax"]})
    samples = next(folder.rglob("samples_tax_*"))
    samples.write_text(samples.read_text()[:-20])
    run = load_run(folder, select=Selection(task="money"))
    assert run.groups == {"money": ("law",)}
    assert list(run.left_out) == ["tax"]


def test_a_file_of_a_group_s_name_holds_its_tasks(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"all": [*make_lines("law", 6), *make_lines("tax", 6)]})
    results_of(folder).unlink()
    assert load_run(folder).tasks == ("law", "tax")
