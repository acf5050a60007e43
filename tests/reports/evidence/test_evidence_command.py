"""The command evidence: facts of a run that can be checked again."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration import metrics
from lm_eval_calibration.reports.evidence.statement import NO_CLAIM, canonical, digest, make_statement
from lm_eval_calibration.results import load_run
from lm_eval_calibration.results.columns import columns

TEXT = "zyzzyva quokka brobdingnagian"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and the statement of it."""
    folder = tmp_path_factory.mktemp("evidence")
    run = write_run(folder / "run", tasks={"anatomy_calibration": 60}, model="<b>org/model", text=TEXT)
    done = evidence(run, "--domain", "exam <questions>", "--output", folder / "new" / "statement.json")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return Path("run")


def evidence(*arguments: object) -> Any:
    return run_command("evidence", *arguments)


def test_the_statement_holds_what_was_measured(run: Path) -> None:
    content = json.loads(Path("new/statement.json").read_text(encoding="utf-8"))["content"]
    assert content["domain"] == "exam <questions>"
    (task,) = content["measured_on"]
    assert (task["task"], task["version"], task["docs"], task["split"]) == ("anatomy_calibration", "1.0", 60, "test")
    values = {value["metric"]: value for value in content["values"]}
    assert set(values) == set(columns("all"))
    arrays = load_run(run).arrays("top_label")
    assert values["ece"]["value"] == pytest.approx(metrics.ece(*arrays), abs=1e-12)
    assert values["ece"]["interval"] == pytest.approx(metrics.ece_interval(*arrays), abs=1e-12)
    assert values["ece"]["null"]["upper"] == metrics.ece_null(*arrays).upper
    assert content["limits"][-1] == NO_CLAIM
    page = Path("new/statement.html").read_text(encoding="utf-8")
    assert NO_CLAIM in page.replace("&#39;", "'")
    assert f"{values['ece']['value']:.4f}" in page
    assert "<questions>" not in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    everything = page + Path("new/statement.json").read_text(encoding="utf-8")
    assert not any(word in everything for word in TEXT.split())


def test_it_is_verified_and_a_changed_figure_is_not(run: Path, tmp_path: Path) -> None:
    done = evidence("--verify", "new/statement.json", run)
    assert done.exit_code == 0, done.output
    assert "2 files are those it was made from" in done.stdout
    data = json.loads(Path("new/statement.json").read_text(encoding="utf-8"))
    data["content"]["values"][0]["value"] += 1e-9
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(data), encoding="utf-8")
    done = evidence("--verify", changed)
    assert done.exit_code == 2
    assert f"error: {changed}: its content was changed and now has sha256" in done.stderr


def test_other_files_are_told(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", tasks={"anatomy_calibration": 60}, seed=1)
    done = evidence("--verify", "new/statement.json", other)
    assert done.exit_code == 2
    assert "other does not hold the files it was made from: results_2026-01-31" in done.stderr


@pytest.mark.slow
def test_the_same_run_at_the_same_time_is_the_same_statement(run: Path) -> None:
    made = datetime(2026, 2, 1, tzinfo=UTC)
    one, again = (make_statement(load_run(run), made=made) for _ in range(2))
    assert canonical(one) == canonical(again)
    assert one["content"]["made"] == "2026-02-01T00:00:00+00:00"
    assert digest({**one["content"], "domain": "x"}) != one["sha256"]


def test_undefined_is_null_with_a_reason(tmp_path: Path) -> None:
    content = make_statement(
        load_run(write_run(tmp_path / "plain", tasks={"anatomy_calibration": 20}, tokenizer=None))
    )["content"]
    found = next(value for value in content["values"] if value["metric"] == "full_ece")
    assert found["value"] is None
    assert found["interval"] is None
    assert found["undefined_because"]
    assert not any("full_ece" in limit for limit in content["limits"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere does not exist"),
        (["run", "--output", "x.pdf"], "error: x.pdf: a statement is written as NAME.json and NAME.html"),
        ([], "name the RUN, or a statement to --verify"),
        (["--verify", "none.json"], "error: none.json is no statement of this command"),
        (["--verify", "bad.json"], "error: bad.json is no statement of this command"),
    ],
)
def test_errors_are_exit_code_2(arguments: list[str], message: str, run: Path) -> None:
    Path("bad.json").write_text('{"content": 1}', encoding="utf-8")
    before = sorted(Path().rglob("*"))
    done = evidence(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())
    assert sorted(Path().rglob("*")) == before
