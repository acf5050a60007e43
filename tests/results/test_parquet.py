"""The numbers of samples files in Parquet: equal metrics, only where they belong, and other tools read them."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import run_command
from logged_runs import make_generated_lines, make_lines, stock_line, write_run
from made_runs import write_run as write_made

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord

NAMES = ("acc", "brier_score", "ece", "ace", "full_ece", "auroc", "nll", "overconfidence")


def broken(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines[2][RECORD_KEY]["gold"] = None
    lines[3][RECORD_KEY]["log_likelihoods"][0] = None
    lines[5][RECORD_KEY]["log_likelihoods"] = [None] * len(lines[5][RECORD_KEY]["log_likelihoods"])
    lines[7][RECORD_KEY]["cluster"] = "00ff"
    return lines


def ragged() -> list[dict[str, Any]]:
    lines = make_lines("ragged", 20, k=3) + [
        {**line, RECORD_KEY: {**line[RECORD_KEY], "doc_id": 100 + i}} for i, line in enumerate(make_lines("ragged", 10))
    ]
    return lines[::-1]


def folder_of(tmp_path: Path) -> Path:
    tasks = {"law": broken(make_lines("law", 60)), "ragged": ragged(), "qa": make_generated_lines("qa", 50, empty=3)}
    stock = [{k: v for k, v in line.items() if k != RECORD_KEY} for line in make_lines("stock", 20)]
    return write_run(tmp_path / "out", {**tasks, "stock": stock}, groups={"all": ["law", "ragged"]})


def shown(folder: Path, **options: Any) -> dict[str, Any]:
    run = load_run(folder, **options)
    numbers = {task: run.metrics(task, names=NAMES) for task in (*run.tasks, *run.groups)}
    frame = run.to_frame()
    about = run.certificates, run.notes, run.groups, run.n_clusters("law"), frame.to_csv()
    return {"numbers": numbers, "about": about, "vocabulary": run.vocabulary("law")}


def export(folder: Path) -> list[Path]:
    done = run_command("export", folder, "--format", "parquet")
    assert done.exit_code == 0, done.stderr
    return sorted(folder.rglob("*.parquet"))


@pytest.mark.parametrize("is_alone", [False, True])
def test_metrics_of_parquet_are_those_of_the_lines(tmp_path: Path, is_alone: bool) -> None:
    folder = folder_of(tmp_path)
    before = shown(folder)
    files = export(folder)
    assert [file.name.split("_")[1] for file in files] == ["law", "qa", "ragged", "stock"]
    if is_alone:
        for path in folder.rglob("*.jsonl"):
            path.unlink()
    after = shown(folder)
    for task, numbers in before["numbers"].items():
        for name, one in numbers.items():
            assert after["numbers"][task][name][:4] == pytest.approx(one[:4], abs=1e-12, nan_ok=True), (task, name)
            assert after["numbers"][task][name][4:] == one[4:]
    if not is_alone:
        assert after["about"] == before["about"]
    assert run_command("report", folder, "--output", tmp_path / "r.html").exit_code == 0
    assert run_command("recalibrate", folder, "--task", "law").exit_code == 0


def test_the_file_is_read_in_place_of_the_lines(tmp_path: Path, monkeypatch) -> None:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 30)})
    export(folder)
    expected = shown(folder)
    monkeypatch.setattr("lm_eval_calibration.results.reading.read_batches", None)
    assert shown(folder) == expected


def test_records_are_made_of_numbers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 12)})
    before = list(load_run(folder).records)
    (numbers,) = export(folder)
    after = list(load_run(numbers).records)
    for one, other in zip(before, after, strict=True):
        assert isinstance(other, ChoicesRecord)
        names = ("task", "doc_id", "doc_hash", "log_likelihoods", "gold", "log_probs", "large_probs", "kept_from")
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def test_numbers_of_other_lines_are_not_used(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 30)})
    export(folder)
    path = next(folder.rglob("*.jsonl"))
    text = path.read_text(encoding="utf-8")
    changed = text.replace('"gold": 3', '"gold": 2', 1)
    assert len(changed) == len(text)
    path.write_text(changed, encoding="utf-8")
    right = [record.correct for record in load_run(path).records]
    assert load_run(folder).to_frame()["correct"].tolist() == right
    path.write_text(text, encoding="utf-8")
    os.utime(path, (0, 0))  # the same lines, copied
    assert shown(folder) == shown(path.parent)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 30)})
    (path,) = export(folder)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"lm_eval_calibration"])
    metadata = {b"lm_eval_calibration": json.dumps({**about, "version": 2}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match="Parquet version 2 is not 1: export it again"):
        load_run(folder)
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(UserError, match="not made by `lm-eval-calibration export --format parquet`"):
        load_run(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=str(path)):
        load_run(path)


def test_a_file_holds_no_text_of_a_doc(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 30, text="planted question")})
    (path,) = export(folder)
    assert b"planted" not in path.read_bytes()
    assert not any("planted" in str(row) for row in pq.read_table(path).to_pylist())
    jsonl = next(folder.rglob("*.jsonl"))
    assert stock_line(0, "q", [-1.0, -2.0], 0)["doc"] == {"question": "q", "answer": 0}
    assert path.stat().st_size < jsonl.stat().st_size


def test_other_tools_query_many_files(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    for seed in range(3):
        write_made(tmp_path / f"run{seed}", tasks={"law": 40, "tax": 30}, seed=seed, model=f"org/m{seed}")
        export(tmp_path / f"run{seed}")
    found = duckdb.sql(
        "SELECT task, count(*), avg(confidence) - avg(correct) "
        f"FROM '{tmp_path}/*/*.parquet' GROUP BY task ORDER BY task"
    ).fetchall()
    for (task, n, gap), name in zip(found, ("law", "tax"), strict=True):
        runs = [load_run(tmp_path / f"run{seed}") for seed in range(3)]
        expected = sum(run.metrics(name, names=("overconfidence",))["overconfidence"].value for run in runs) / 3
        assert (task, n) == (name, {"law": 120, "tax": 90}[name])
        assert gap == pytest.approx(expected, abs=1e-12)
