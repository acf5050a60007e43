"""Numbers beside samples, broken in every way: named, and the samples are read; alone, the task is left out by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from logged_runs import make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError

META = b"lm_eval_calibration"


def changed(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Change the table, its description kept."""

    def harm(file: Path) -> None:
        table = pq.read_table(file)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), file)

    return harm


def column(name: str, change: Callable[[list[Any]], Any], kind: pa.DataType | None = None) -> Callable[[Path], None]:
    """Change the values of a column."""

    def harm(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        values = table.column(at).to_pylist()
        return table.set_column(at, name, pa.array(change(values) or values, kind or table.schema.field(at).type))

    return changed(harm)


def described(text: bytes) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        pq.write_table(pq.read_table(file).replace_schema_metadata({META: text}), file)

    return harm


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(bytes(content))


NUMBERS = pa.list_(pa.float64())
BROKEN: dict[str, Callable[[Path], None]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]) and None,
    "a flipped byte": flipped,
    "empty": lambda file: file.write_bytes(b"") and None,
    "text": lambda file: file.write_text("hello") and None,
    "no description": lambda file: pq.write_table(pa.table({"a": [1]}), file),
    "description is no JSON": described(b"not json"),
    "description is a list": described(b"[1]"),
    "no column of labels": changed(lambda table: table.drop_columns(["gold"])),
    "log-likelihoods are texts": column("log_likelihoods", lambda values: ["x"] * len(values), pa.string()),
    "NaN": column("log_likelihoods", lambda values: values.__setitem__(3, [float("nan")] * 4), NUMBERS),
    "a probability of 7": column("log_likelihoods", lambda values: values.__setitem__(3, [2.0, -1, -1, -1]), NUMBERS),
    "a label outside": column("gold", lambda values: values.__setitem__(3, 9)),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "out", {"law": make_lines("law", 24), "tax": make_lines("tax", 24)})
    assert run_command("export", folder, "--format", "parquet").exit_code == 0
    return folder


def samples(folder: Path, task: str = "law") -> Path:
    return next(folder.rglob(f"samples_{task}_*.jsonl"))


@pytest.mark.parametrize("name", BROKEN)
def test_beside_sound_samples(run: Path, name: str, tmp_path: Path) -> None:
    expected = load_run(run).metrics(names=("acc", "ece"))
    file = samples(run).with_suffix(".parquet")
    BROKEN[name](file)
    found = load_run(run)
    assert found.tasks == ("law", "tax")
    assert found.metrics(names=("acc", "ece")) == expected
    assert any(file.name in note for note in found.notes) or name == "no description", found.notes
    assert run_command("report", run, "--output", tmp_path / "r.html").exit_code == 0


@pytest.mark.parametrize("name", BROKEN)
def test_alone(run: Path, name: str) -> None:
    expected = load_run(samples(run, "tax")).metrics(names=("acc", "ece"))
    file = samples(run).with_suffix(".parquet")
    samples(run).unlink()
    BROKEN[name](file)
    found = load_run(run)
    assert found.tasks == ("tax",)
    assert found.metrics(names=("acc", "ece")) == expected
    assert re.search(r"samples_law_|law", " ".join(found.notes)), found.notes
    for path in run.rglob("samples_tax_*"):
        path.unlink()
    with pytest.raises(UserError):
        load_run(run)
