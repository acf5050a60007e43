"""Records in ``samples_*.jsonl`` files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.records.batch import Batch
from lm_eval_calibration.records.columns import Columns
from lm_eval_calibration.records.decoding import decode
from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.records.record import OTHER_FILTER, RECORD_KEY, Record


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a ``samples_*.jsonl`` file; raise ValueError naming file and line where there is none.

    A task with several filters has a line for each; all but one say in words where the doc's record is.
    """
    file = JsonLines(path)
    for number, lines in file.blocks():
        yield from (record for _, record in records_in(file, number, lines))


def read_columns(*paths: str | Path, n_bins: int = 10) -> Columns:
    """Read ``samples_*.jsonl`` files in one pass that keeps only what the metrics of all their docs need.

    A million docs take some 60 MB. A group's docs are in several files, one for each task.

    Args:
        *paths: files, in any order.
        n_bins: bins of the gap sums.

    Raises:
        ValueError: naming file and line where there is no record.
    """
    columns = Columns(n_bins)
    for path in paths:
        for batch, _ in read_batches(JsonLines(path)):
            columns.add_batch(batch)
    return columns


def read_batches(file: JsonLines, *, with_names: bool = False) -> Iterator[tuple[Batch, list[int]]]:
    """Yield a file's docs, some at a time, and their rows, which count its lines from 0.

    Args:
        file: a samples file with our records.
        with_names: as of :meth:`Batch.of`.

    Raises:
        ValueError: naming file and line where there is no record.
    """
    is_plain = True
    for number, lines in file.blocks():
        docs = decode(lines) if is_plain else None
        rows = list(range(number - 1, number - 1 + len(lines)))
        if docs is None:
            found = list(records_in(file, number, lines))
            rows, docs = [row for row, _ in found], [record for _, record in found]
            is_plain = all(record.kind == "multiple_choice" for record in docs)
        yield Batch.of(docs, with_names=with_names), rows


def records_in(file: JsonLines, number: int, lines: list[bytes]) -> Iterator[tuple[int, Record]]:
    """Yield row and record of each of some lines but those of other filters; ``number`` is the first one's."""
    for row, line in enumerate(file.values(number, lines), number - 1):
        if not is_of_other_filter(line):
            yield row, record_of(line, file.where(row + 1))


def is_of_other_filter(line: Any) -> bool:
    """Whether a line says that the doc's record is in the line of another of the task's filters."""
    found = line.get(RECORD_KEY) if isinstance(line, Mapping) else None
    return isinstance(found, str) and found.startswith(OTHER_FILTER)


def record_of(line: Any, where: str) -> Record:
    """Return the record in a line; raise ValueError naming the line, file included, where none can be read."""
    try:
        found = line.get(RECORD_KEY) if isinstance(line, Mapping) else None
        if not isinstance(found, dict):
            raise ValueError(f"no {RECORD_KEY!r} record")
        return Record.from_dict(found)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from error


def ordered(records: Iterable[Record]) -> list[Record]:
    """Sort by task, then doc id."""
    return sorted(records, key=lambda r: (r.task, -1 if r.doc_id is None else r.doc_id))
