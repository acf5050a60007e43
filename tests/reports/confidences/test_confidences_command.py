"""Ways of stating confidence side by side, against what the metrics say of the same arrays."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from logged_runs import make_lines, write_run

from lm_eval_calibration import metrics
from lm_eval_calibration.recalibration import cross_fit
from lm_eval_calibration.records import RECORD_KEY, Record, StatedConfidence
from lm_eval_calibration.results import load_run

TASK = "quiz_p_true_calibration"
N = 120


def with_p_true(lines: list[dict[str, Any]], seed: int, certainty: float) -> list[dict[str, Any]]:
    """The same run with P(true) that knows more of the answers the larger ``certainty``; the last doc has none."""
    rng, changed = np.random.default_rng(seed), []
    for line in lines:
        record = Record.from_dict(line[RECORD_KEY])
        p = 1 / (1 + np.exp(-rng.normal(certainty * (2 * int(record.correct or 0) - 1), 1)))
        asked = StatedConfidence("kapoor", None if record.doc_id == N - 1 else float(p))
        changed.append({**line, RECORD_KEY: replace(record, stated={"p_true": asked}).to_dict()})
    return changed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("runs")
    lines = make_lines(TASK, n=N)
    for name, certainty in (("untuned", 0.0), ("tuned", 2.0)):
        write_run(base / name, {TASK: with_p_true(lines, 1, certainty)})
    return base / "untuned", base / "tuned"


def show(*arguments: object) -> Any:
    return run_command("confidences", *arguments)


def test_every_way_has_the_metrics_of_its_own_arrays(folders: tuple[Path, Path]) -> None:
    data = json.loads(show(*folders, "--format", "json").stdout)["tasks"][TASK]
    found = {(row["run"], row["kind"]): row for row in data["confidences"]}
    assert [kind for run, kind in found if run == "tuned"] == [
        *("probability of the answer", "after temperature scaling", "P(true)"),
    ]
    run = load_run(folders[1])
    records = [record for record in run.records if record.doc_id != N - 1]
    p_true = [record.stated["p_true"].confidence for record in records if "p_true" in record.stated]
    correct = [record.correct for record in records]
    row = found["tuned", "P(true)"]
    assert (row["n_docs"], row["n_without"]) == (N - 1, 1)
    assert row["ece"]["value"] == pytest.approx(metrics.ece(p_true, correct), abs=1e-12)
    assert row["auroc"]["value"] == pytest.approx(metrics.auroc(p_true, correct), abs=1e-12)
    scaled = cross_fit("temperature", run.recalibration_docs(TASK)).forecasts
    row = found["tuned", "after temperature scaling"]
    assert row["brier_top_label"]["value"] == pytest.approx(
        metrics.brier_top_label(scaled.confidence, scaled.correct), abs=1e-12
    )
    plain = run.metrics(TASK, names=["acc", "ece"])
    assert found["tuned", "probability of the answer"]["ece"]["value"] == pytest.approx(plain["ece"].value, abs=1e-12)
    assert found["tuned", "P(true)"]["acc"]["low"] < plain["acc"].value < found["tuned", "P(true)"]["acc"]["high"]


def test_changes_are_of_the_same_docs(folders: tuple[Path, Path]) -> None:
    data = json.loads(show(*folders, "--format", "json").stdout)["tasks"][TASK]
    changes = {(change["from"], change["to"]): change for change in data["changes"]}
    change = changes["untuned: P(true)", "tuned: P(true)"]
    assert change["n_docs"] == N - 1
    assert (change["acc"]["difference"], change["acc"]["low"] <= 0 <= change["acc"]["high"]) == (0, True)
    assert change["auroc"]["low"] > 0
    assert change["auroc"]["b"] - change["auroc"]["a"] == pytest.approx(change["auroc"]["difference"], abs=1e-9)


def test_the_table_says_what_is_better(folders: tuple[Path, Path]) -> None:
    said = show(f"before={folders[0]}", f"after={folders[1]}").stdout
    (line,) = (line for line in said.splitlines() if line.startswith(r"| after: P\(true\), less before: P\(true\) |"))
    assert line.count("better") >= 2
    assert r"| before: P\(true\) | 119 (1 without) |" in said


def test_a_run_without_p_true_has_the_other_ways(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", {"quiz_calibration": make_lines("quiz_calibration", n=30)})
    said = show(tmp_path / "plain").stdout
    assert "after temperature scaling" in said
    assert "P\\(true\\)" not in said


@pytest.mark.slow
def test_pictures_are_reliability_diagrams(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib (extra `report`)")
    for suffix, begin in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        path = tmp_path / f"picture.{suffix}"
        assert show(folders[1], "--output", path).exit_code == 0
        assert path.read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--task", "xyz"), "--task xyz: there are the tasks and groups in common"),
        (("--format", "docx"), "no format 'docx'"),
        (("--format", "png"), "give --output FILE"),
    ],
)
def test_what_can_t_be_shown_is_one_error(folders: tuple[Path, Path], arguments: tuple[str, str], words: str) -> None:
    result = show(*folders, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_two_runs_of_one_name_are_refused(folders: tuple[Path, Path]) -> None:
    result = show(f"x={folders[0]}", f"x={folders[1]}")
    assert result.exit_code == 2
    assert "two runs have the same name" in result.stderr


def test_words_of_changes_are_after_holm_over_all_tests(folders: tuple[Path, Path]) -> None:
    data = json.loads(show(*folders, "--format", "json").stdout)
    found = [
        change[name]
        for task in data["tasks"].values()
        for change in task["changes"]
        for name in ("acc", "ece", "auroc", "brier_top_label")
    ]
    p = [np.nan if one["p_value"] is None else one["p_value"] for one in found]
    adjusted = [np.nan if one["p_adjusted"] is None else one["p_adjusted"] for one in found]
    np.testing.assert_allclose(adjusted, metrics.holm(p), rtol=1e-12)
    assert not [one for one in found if one["verdict"] and not one["p_adjusted"] <= 0.05]
    assert f"Holm's procedure over {np.count_nonzero(~np.isnan(p))} test" in show(*folders).stdout
