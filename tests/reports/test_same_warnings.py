"""What one command says of a run, every command says; and of one it says one."""

import json
from pathlib import Path

import pytest
from commands import run_command
from made_runs import write_run

NOTE = "law, tax: ace means little here: the gold choice of every doc is at position 1"


def with_one_gold(folder: Path, **options: object) -> Path:
    """A run in two of whose tasks the gold choice of every doc is the second."""
    write_run(folder, tasks={"law": 30, "tax": 25, "art": 30}, **options)  # type: ignore[arg-type]
    for path in folder.glob("samples_*"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            if "art" not in path.name:
                line["calibration"]["gold"] = 1
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "command",
    [f"{name} {{a}}" for name in ("report", "export", "decide", "evidence", "recalibrate")]
    + [f"{name} {{a}} {{b}}" for name in ("compare", "drift", "confidences")],
)
def test_ace_with_a_gold_always_in_one_place_is_told_by_all(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = with_one_gold(tmp_path / "a"), with_one_gold(tmp_path / "b", seed=1, model="org/other")
    done = run_command(*command.format(a=a, b=b).split())
    said = " ".join((done.stderr + done.stdout).split())
    assert NOTE in said, said
    assert "art: ace means" not in said


def test_one_is_no_plural(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", tasks={"law": 1})
    b = write_run(tmp_path / "b", tasks={"law": 1}, seed=1, model="org/other")
    assert "2 runs, 1 table: " in run_command("compare", a, b, "--output", tmp_path / "c.md").stderr
    assert "1 run: " in run_command("runs", a, "--output", tmp_path / "runs.json").stderr
    assert "1 doc: " in run_command("export", a, "--format", "parquet").stderr
