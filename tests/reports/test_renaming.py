"""``--rename OLD=NEW``: wherever names of models and tasks are shown, and nowhere after the command."""

import json
from pathlib import Path

import pytest
from commands import run_command
from logged_runs import make_lines, write_run

from lm_eval_calibration.cli import SHOW_NAMES
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.names import parse_renames, renamed, shown, task_name

TASKS = ("mmlu_anatomy_calibration", "mmlu_virology_calibration")
NAMES = ("--rename", "mmlu_anatomy=Bones & flesh", "--rename", "org/model=Small", "--rename", "other=Large")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    lines = {task: make_lines(task, n=60) for task in TASKS}
    return write_run(folder / "a", lines), write_run(folder / "b", lines, model="org/other")


def output_of(command: str, *arguments: object) -> str:
    done = run_command(command, *arguments)
    return str(done.stdout)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "latex", "html"])
def test_compare_shows_new_names(runs: tuple[Path, Path], form: str) -> None:
    text = output_of("compare", *runs, "--format", form, *NAMES)
    for old in ("mmlu_anatomy", "org/model", "MMLU anatomy"):
        assert old not in text
    for new in ("Small", "Large", "Bones"):
        assert new in text


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
def test_report_shows_new_names(runs: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    output_of("report", runs[0], "--output", tmp_path / f"r.{suffix}", *NAMES)
    text = (tmp_path / f"r.{suffix}").read_text()
    assert "Bones" in text
    assert "Small" in text
    assert "MMLU anatomy" not in text


@pytest.mark.parametrize("form", ["text", "json", "junit", "github", "md"])
def test_drift_shows_new_names(runs: tuple[Path, Path], form: str) -> None:
    text = output_of("drift", *runs, "--format", form, *NAMES)
    assert "mmlu_anatomy" not in text
    assert "Bones" in text or form == "github"
    if form in ("text", "md", "json"):
        assert "Small" in text
        assert "Large" in text


def test_the_rest_shows_new_names(runs: tuple[Path, Path], tmp_path: Path) -> None:
    output_of("evidence", runs[0], "--output", tmp_path / "e", *NAMES)
    page = (tmp_path / "e.html").read_text()
    assert "Bones &amp; flesh" in page
    assert "Small" in page
    content = json.loads((tmp_path / "e.json").read_text())["content"]
    assert content["model"]["name"] == "org/model"  # what is signed keeps its facts
    assert "Bones" in output_of("confidences", runs[0], *NAMES)
    assert "Small" in output_of("runs", tmp_path.parent, runs[0], *NAMES)
    assert "Bones" in output_of("decide", runs[0], "--by", "task", *NAMES)


def test_a_name_holds_for_its_command_alone(runs: tuple[Path, Path]) -> None:
    output_of("compare", *runs, *NAMES)
    assert "Small" not in output_of("compare", *runs)
    with renamed({"a": "b"}):
        assert shown("a") == task_name("a") == "b"
    assert shown("a") == "a"


def test_what_is_no_pair_of_names_is_an_error(runs: tuple[Path, Path]) -> None:
    for text in ("a", "=b", "a=", " = "):
        done = run_command("compare", *runs, "--rename", text)
        assert done.exit_code == 2
        assert "it is OLD=NEW" in done.stderr
    with pytest.raises(UserError, match="renamed twice"):
        parse_renames(["a=b", "a=c"])
    assert parse_renames(["a=b=c"]) == {"a": "b=c"}
    assert len(SHOW_NAMES) == 10


@pytest.mark.parametrize("command", ["compare", "drift", "report", "runs", "confidences"])
def test_a_name_that_is_nowhere_is_noted_with_those_there_are(
    runs: tuple[Path, Path], tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = runs[:1] if command in ("report", "runs") else runs
    done = run_command(command, *given, "--rename", "mmlu_anatomy=Bones", "--rename", "nowhere=X")
    assert "--rename nowhere=X: nothing shown is called nowhere; there are " in done.stderr
    assert "mmlu_anatomy_calibration" in done.stderr.partition("there are")[2]
    assert "--rename mmlu_anatomy" not in done.stderr
