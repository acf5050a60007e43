"""Records in ``samples_*.jsonl`` files."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lm_eval_calibration.records import jsonl
from lm_eval_calibration.records.columns import Columns
from lm_eval_calibration.records.record import OTHER_FILTER, RECORD_KEY, Record


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a ``samples_*.jsonl`` file; raise ValueError naming file and line where there is none.

    A task with several filters has a line for each; all but one say in words where the doc's record is.
    """
    return (record_of(line, path, number) for number, _, line in read_lines(path) if not is_of_other_filter(line))


def read_columns(*paths: str | Path, n_bins: int = 10) -> Columns:
    """Read ``samples_*.jsonl`` files in one pass that keeps only what the metrics of all their docs need.

    A million docs take some 60 MB. A group's docs are in several files, one for each task.

    Args:
        *paths: files, in any order.
        n_bins: bins of the gap sums.

    Raises:
        ValueError: naming file and line where there is no record.
    """
    return Columns.of(chain.from_iterable(map(read_records, paths)), n_bins)


def read_lines(path: str | Path, start: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the lines of a ``samples_*.jsonl`` file, as :func:`jsonl.read_from` does; each is a mapping."""
    for number, first_byte, line in jsonl.read_from(path, start):
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number}: no {RECORD_KEY!r} record")
        yield number, first_byte, line


def is_of_other_filter(line: Mapping[str, Any]) -> bool:
    """Whether a line says that the doc's record is in the line of another of the task's filters."""
    found = line.get(RECORD_KEY)
    return isinstance(found, str) and found.startswith(OTHER_FILTER)


def record_of(line: Mapping[str, Any], path: str | Path, number: int) -> Record:
    """Return the record in a line; raise ValueError naming file and line where none can be read."""
    try:
        if not isinstance(line.get(RECORD_KEY), dict):
            raise ValueError(f"no {RECORD_KEY!r} record")
        return Record.from_dict(line[RECORD_KEY])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def ordered(records: Iterable[Record]) -> list[Record]:
    """Sort by task, then doc id."""
    return sorted(records, key=lambda r: (r.task, -1 if r.doc_id is None else r.doc_id))
