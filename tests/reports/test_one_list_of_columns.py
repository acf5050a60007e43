"""A metric that is registered in one file is a column of every table, and no other file is touched."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import registry
from lm_eval_calibration.results import load_run
from lm_eval_calibration.results.columns import columns

NAME = "mean_deviation"


def mean_deviation(confidence: Any, correct: Any) -> float:
    return float(np.mean(np.abs(np.asarray(confidence) - correct)))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registry.temporarily(registry.define(mean_deviation, "top_label", higher_is_better=False)):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / f"{s}", seed=s, model=f"m{s}", tasks={"anatomy_calibration": 30}) for s in range(2)]


@pytest.fixture(scope="module")
def value(runs: list[Path]) -> float:
    return mean_deviation(*load_run(runs[0]).arrays("top_label"))


def run(*arguments: object) -> str:
    done = run_command(*arguments)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def test_export_and_compare_have_its_value_and_interval(runs: list[Path], value: float) -> None:
    lines = {row["metric"]: row for row in csv.DictReader(io.StringIO(run("export", runs[0], "--format", "csv")))}
    assert float(lines[NAME]["value"]) == pytest.approx(value, abs=1e-12)
    assert float(lines[NAME]["low"]) < value < float(lines[NAME]["high"])
    assert float(lines[NAME]["null_mean"]) > 0
    compared = json.loads(run("compare", *runs, "--format", "json"))
    assert compared["tasks"][0]["runs"]["m0"][NAME]["value"] == pytest.approx(value, abs=1e-12)
    assert next(pair["p_value"] for pair in compared["pairs"] if pair["metric"] == NAME) > 0


def test_drift_tests_it(runs: list[Path], value: float) -> None:
    (test,) = (t for t in json.loads(run("drift", *runs, "--format", "json"))["tests"] if t["metric"] == NAME)
    assert test["base"] == pytest.approx(value, abs=1e-12)
    assert test["verdict"] in ("within", "unclear")


@pytest.mark.slow
def test_report_and_evidence_show_it(runs: list[Path], value: float, tmp_path: Path) -> None:
    run("report", runs[0], "--output", tmp_path / "r.html")
    assert f'<th scope="row">{NAME}</th><td>{value:.4f}</td>' in (tmp_path / "r.html").read_text(encoding="utf-8")
    run("evidence", runs[0], "--output", tmp_path / "e")
    values = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["content"]["values"]
    assert next(v["value"] for v in values if v["metric"] == NAME) == pytest.approx(value, abs=1e-12)
    assert f'<th scope="row" class="nowrap">{NAME}</th>' in (tmp_path / "e.html").read_text(encoding="utf-8")


def test_every_metric_of_ours_is_in_the_list_or_left_out_of_it_on_purpose() -> None:
    assert columns("compare") == ("acc", *metrics.CORE, NAME)
    for table in ("all", "drift", "compare: generated answers"):
        assert columns(table)[-1] == NAME
    assert NAME not in columns("report: each task")
