"""Records in ``samples_*.jsonl`` files."""

import gc
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lm_eval_calibration.records.batch import Batch
from lm_eval_calibration.records.columns import Columns
from lm_eval_calibration.records.decoding import decode
from lm_eval_calibration.records.jsonl import JsonLines, Part
from lm_eval_calibration.records.record import OTHER_FILTER, RECORD_KEY, Record


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a ``samples_*.jsonl`` file; raise ValueError naming file and line where there is none.

    A task with several filters has a line for each; all but one say in words where the doc's record is.
    """
    file = JsonLines(path)
    for number, lines in file.blocks():
        yield from (record for _, record in records_in(file, number, lines))


def read_columns(*paths: str | Path, n_bins: int = 10) -> Columns:
    """Read ``samples_*.jsonl`` files, or the Parquet files of their numbers: only what the metrics of all docs need.

    A million docs take some 60 MB. A group's docs are in several files, one for each task.

    Args:
        *paths: files, in any order.
        n_bins: bins of the gap sums.

    Raises:
        ValueError: naming file and line where there is no record, or a Parquet file of another version.
    """
    from lm_eval_calibration.records.parquet import SUFFIX, read_parquet

    columns = Columns(n_bins)
    for path in map(Path, paths):
        is_parquet = path.suffix == SUFFIX
        for batch, _ in read_parquet(path, with_names=False) if is_parquet else read_batches(JsonLines(path)):
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
    parts = file.parts()
    if len(parts) > 1 and processors() > 1:
        yield from _in_parallel(file, parts, with_names=with_names)
        return
    yield from _batches(file, file.blocks(), with_names=with_names)


def _batches(
    file: JsonLines, blocks: Iterable[tuple[int, list[bytes]]], *, with_names: bool
) -> Iterator[tuple[Batch, list[int]]]:
    is_plain = True
    for number, lines in blocks:
        batch = _plain_batch(lines, with_names=with_names) if is_plain else None
        rows = list(range(number - 1, number - 1 + len(lines)))
        if batch is None:
            found = list(records_in(file, number, lines))
            rows, docs = [row for row, _ in found], [record for _, record in found]
            is_plain = all(record.kind == "multiple_choice" for record in docs)
            batch = Batch.of(docs, with_names=with_names)
        yield batch, rows


def _plain_batch(lines: Sequence[bytes], *, with_names: bool) -> Batch | None:
    """The docs of some lines; None where they aren't all plain multiple choice."""
    had_collector = gc.isenabled()
    gc.disable()  # it would look for cycles, of which there are none, for a fifth of the time
    try:
        docs = decode(lines)
        return None if docs is None else Batch.of(docs, with_names=with_names)
    finally:
        if had_collector:
            gc.enable()


def _in_parallel(file: JsonLines, parts: Sequence[Part], *, with_names: bool) -> Iterator[tuple[Batch, list[int]]]:
    """The docs of a large file, whose parts several processes decode; lines of other kinds are left to this one."""
    number = 1
    with ProcessPoolExecutor(processors()) as pool:
        for part, (n_lines, batches) in zip(
            parts, pool.map(_decoded, [(file.path, part, with_names) for part in parts]), strict=True
        ):
            if batches is None:
                yield from _batches(file, file.blocks_of(part, number), with_names=with_names)
            else:
                row = number - 1
                for batch in batches:
                    yield batch, list(range(row, row + len(batch)))
                    row += len(batch)
            number += n_lines


def _decoded(wanted: tuple[Path, Part, bool]) -> tuple[int, list[Batch] | None]:
    """Number of lines of a part, and its docs; None where they aren't all plain multiple choice."""
    path, part, with_names = wanted
    n_lines, batches = 0, []
    is_plain = True
    for _, lines in JsonLines(path).blocks_of(part, 1):
        n_lines += len(lines)
        batch = _plain_batch(lines, with_names=with_names) if is_plain else None
        is_plain = batch is not None
        if batch is not None:
            batches.append(batch)
    return n_lines, batches if is_plain else None


def processors() -> int:
    """Return how many processors this process may use; one that was started by another of ours, its own alone."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
