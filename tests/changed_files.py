"""A run of two tasks, and what may become of its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logged_runs import make_lines, write_run

LINES, OTHER = make_lines("law", 24), make_lines("tax", 24)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def two_tasks(tmp_path: Path) -> Path:
    return write_run(tmp_path / "out", {"law": LINES, "tax": OTHER})


def samples_of(folder: Path, task: str = "law") -> Path:
    return next(folder.rglob(f"samples_{task}_*"))


def results_of(folder: Path) -> Path:
    return next(folder.rglob("results_*"))


def change(path: Path, how: Callable[[list[Any]], Any]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    how(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def summary(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def record(**changes: Any) -> Callable[[Path], None]:
    """Break a record of the law task."""

    def harm(folder: Path) -> None:
        change(samples_of(folder), lambda lines: lines[4]["calibration"].update(changes))

    return harm


def in_line(old: str, new: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = samples_of(folder)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines[4] = lines[4].replace(old, new, 1)
        path.write_text("".join(lines), encoding="utf-8")

    return harm
