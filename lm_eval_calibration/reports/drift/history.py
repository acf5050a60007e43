"""The history file: one line for each run; lines are added whole or not at all, and never changed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import only_writer, write_whole

VERSION = 1
"""Version of a line's form; others are refused."""


@dataclass(frozen=True)
class Entry:
    """A run as the history keeps it.

    Attributes:
        run: SHA-256 of its samples files.
        date: when it ended, ISO 8601.
        model: its name.
        n_bins: bins of the binned metrics.
        values: by task ("all" for the docs of all tasks) and metric: value, lower and upper end of its interval, null
            where undefined.
        n_docs: by task.
        base: the ``run`` that it was compared with; "" for a base run, as is its verdict.
        verdict: of the gate.
        drifted: "task metric" of each drift.
        revision: of the model, as far as the run knows it.
        commit: of the folder that the harness ran in.
        tolerances: by metric.
        newly_wrong: docs that the base run answered right and this one wrong, those of which it is surest: task,
            number, confidence before and now. No line holds a text of a doc.
        n_newly_wrong: number of all of them.
        n_newly_right: number of docs that the base run answered wrong and this one right.
    """

    run: str
    date: str
    model: str
    n_bins: int
    values: dict[str, dict[str, list[float | None]]]
    n_docs: dict[str, int]
    base: str = ""
    verdict: str = ""
    drifted: tuple[str, ...] = ()
    revision: str = ""
    commit: str = ""
    tolerances: dict[str, float] = field(default_factory=dict)
    newly_wrong: tuple[tuple[str, int | None, float | None, float | None], ...] = ()
    n_newly_wrong: int = 0
    n_newly_right: int = 0


def read_history(path: Path) -> list[Entry]:
    """Return the runs of a history file in the order of its lines; none where there is no file.

    Raises:
        UserError: naming the line that is no entry, or the file whose last line was cut short.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if text and not text.endswith("\n"):
        raise UserError(f"{path}: its last line was cut short (no line end); mend or move the file")
    return [_entry(line, f"{path}, line {number}") for number, line in enumerate(text.splitlines(), start=1)]


def append(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Add the runs that the file does not hold yet, each as one line, all of them or none; return the history.

    Raises:
        UserError: the file is broken.
        OutputError: it can't be written.
    """
    with only_writer(path):
        known = read_history(path)
        seen = {(old.run, old.date) for old in known}  # an unchanged model gives equal samples on another day
        new = [entry for entry in entries if (entry.run, entry.date) not in seen]
        if new:
            lines = [json.dumps({"version": VERSION, **asdict(entry)}, allow_nan=False) + "\n" for entry in new]
            kept = path.read_bytes() if path.exists() else b""
            write_whole(path, kept + "".join(lines).encode("utf-8"))
    return known + new


def _entry(line: str, location: str) -> Entry:
    try:
        data: Any = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError("it is not an object")
        if (version := data.pop("version", None)) != VERSION:
            raise ValueError(f"version {version!r} of the history is not {VERSION}")
        data["drifted"] = tuple(data.get("drifted") or ())
        data["newly_wrong"] = tuple(tuple(doc) for doc in data.get("newly_wrong") or ())
        entry = Entry(**data)
        for metrics in entry.values.values():
            for numbers in metrics.values():
                if len(numbers) != 3 or not all(x is None or isinstance(x, int | float) for x in numbers):
                    raise ValueError(f"{numbers!r} is not value, lower and upper end")
        return entry
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{location}: not a line of a history: {error}") from error
