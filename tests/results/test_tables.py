"""Tables of other people: CSV, Parquet and JSON lines, with ``--columns``."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from scipy.special import softmax

from lm_eval_calibration import load_run, metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results import Selection

RNG = np.random.default_rng(3)
CONFIDENCE = RNG.choice([0.1, 0.3, 0.5, 0.7, 0.9, 1.0], 200)
CORRECT = (RNG.random(200) < CONFIDENCE**2).astype(int)
LOGITS = RNG.normal(0, 2, (200, 4))
PROBS = softmax(LOGITS, axis=1)
GOLD = np.array([RNG.choice(4, p=p) for p in softmax(LOGITS / 2, axis=1)])


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers() -> list[dict[str, Any]]:
    return [{"p": c, "ok": h} for c, h in zip(CONFIDENCE.tolist(), CORRECT.tolist(), strict=True)]


def choices() -> list[dict[str, Any]]:
    return [
        {"probs": p, "logs": np.log(p).tolist(), "gold": g, "ward": i % 3}
        for i, (p, g) in enumerate(zip(PROBS.tolist(), GOLD.tolist(), strict=True))
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_table_of_confidences(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"mine{suffix}", answers())
    run = load_run(path, select=Selection(columns="confidence=p,correct=ok"))
    found = run.metrics(names=("acc", "ece", "auroc", "brier_top_label"))
    assert run.model == "mine"
    assert found["acc"].value == CORRECT.mean()
    for name in ("ece", "auroc", "brier_top_label"):
        assert found[name].value == getattr(metrics, name)(CONFIDENCE, CORRECT), name


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("column", ["probabilities=probs", "log_likelihoods=logs"])
def test_a_table_of_choices(tmp_path: Path, suffix: str, column: str) -> None:
    path = write(tmp_path / f"mine{suffix}", choices())
    run = load_run(path, select=Selection(columns=f"gold,{column}"))
    found = run.metrics(names=("ace", "brier_score"))
    for name in found:
        assert found[name].value == pytest.approx(getattr(metrics, name)(PROBS, GOLD), abs=1e-12), name


@pytest.mark.parametrize("command", ["report", "decide", "recalibrate", "compare"])
@pytest.mark.parametrize("is_choice", [True, False])
def test_commands_take_tables(tmp_path: Path, command: str, is_choice: bool, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, columns = (choices(), "gold,probabilities=probs") if is_choice else (answers(), "confidence=p,correct=ok")
    paths = [write(tmp_path / "one.csv", rows)]
    if command == "compare":
        paths.append(tmp_path / "two.csv")
        for path in paths:
            write(path, [{**row, "noise": path.stem} for row in rows])
    options = ["--method", "platt"] if command == "recalibrate" else []
    done = run_command(command, *paths, "--columns", columns, *options)
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"p": 1.5, "ok": 1}, "confidence=p,correct=ok", r"row 201: confidence is 1.5, not 0 to 1"),
        ({"p": "high", "ok": 1}, "confidence=p,correct=ok", r"row 201: confidence is 'high', not a number"),
        ({"p": 0.5, "ok": 0.5}, "confidence=p,correct=ok", r"row 201: correct is .*0.5.*, not a whole number"),
        ({"p": 0.5, "ok": 2}, "confidence=p,correct=ok", r"row 201: correct is 2, not 0 or 1"),
        ({"p": 0.5, "ok": "inf"}, "confidence=p,correct=ok", r"row 201: correct is 'inf', not a whole number"),
        ({"p": "[" * 5000, "ok": 0}, "probabilities=p,gold=ok", r"row 1: probabilities is .*, not a (list|number)"),
        ({"p": "nan", "ok": 1}, "confidence=p,correct=ok", r"row 201: confidence is nan"),
        ({"p": 0.5, "ok": 1}, "confidence=q,correct=ok", r"row 1: no column 'q'; there are p, ok"),
        ({"p": 0.5, "ok": 1}, "confidense=p,correct=ok", r"no field 'confidense' \(did you mean confidence\?\)"),
        ({"p": 0.5, "ok": 1}, "confidence=p", r"name confidence and correct, or gold and probabilities"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], columns: str, message: str) -> None:
    path = write(tmp_path / "mine.csv", [*answers(), row])
    with pytest.raises(UserError, match=message):
        load_run(path, select=Selection(columns=columns))


def test_rows_of_equal_numbers_are_different_docs(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", [{"p": 0.9, "ok": i % 2} for i in range(40)])
    run = load_run(path, select=Selection(columns="confidence=p,correct=ok"))
    assert len(set(run.recalibration_docs().doc_hashes.tolist())) == 40


def test_tables_without_a_column_of_tasks_are_compared_doc_by_doc(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{**row, "id": i} for i, row in enumerate(answers())]
    write(tmp_path / "mine.csv", rows)
    write(tmp_path / "yours.csv", [{**row, "p": row["p"] / 2} for row in rows])
    done = run_command("compare", "mine.csv", "yours.csv", "--columns", "confidence=p,correct=ok,doc_id=id")
    assert done.exit_code == 0, done.output
    assert "mine" in done.output
    assert "yours" in done.output
    assert "unpaired" not in done.output
    again = run_command("compare", "mine.csv", "mine.csv", "--columns", "confidence=p,correct=ok,doc_id=id")
    assert "mine.csv and mine.csv are the same files" in again.output


def test_columns_that_were_not_named_are_fields_of_docs(tmp_path: Path) -> None:
    rows = [{**row, "ward": f"w{i // 5}", "shift": "night" if i % 2 else "day"} for i, row in enumerate(answers())]
    path = write(tmp_path / "mine.csv", rows)
    run = load_run(path, select=Selection(columns="confidence=p,correct=ok"), cluster="doc.ward")
    found = run.metrics(names=["overconfidence"])["overconfidence"]
    assert found.n_clusters == 40
    wards = np.repeat(np.arange(40), 5)
    low, high = metrics.overconfidence_interval(CONFIDENCE, CORRECT, cluster=wards)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert run.group_errors().fields == ("doc.shift",)  # not the outcome itself
