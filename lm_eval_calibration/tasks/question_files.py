"""Rows of questions as people have them: CSV, Parquet, JSON lines, or a dataset's name; each with where it stands."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.records import jsonl

SPLITS = ("test", "validation", "train")
"""Of a dataset, the first of these that it has."""

Row = Mapping[str, Any]


class Table(NamedTuple):
    """Rows of a file or dataset.

    Attributes:
        name: of the file, without its folder, or of the dataset with its split.
        columns: names, in order.
        rows: their values by column.
        locations: where each row stands, for people.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    locations: tuple[str, ...]


def read_table(source: str) -> Table:
    """Read a file by its suffix, or a dataset of the Hugging Face hub by its name (``org/name``, ``org/name:config``).

    Raises:
        TaskError: it can't be read; the message names the file, and the line where there is one.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() in READERS:
        if not path.is_file():
            raise TaskError(f"{source}: there is no such file")
        try:
            found = [(where, row) for where, row in READERS[path.suffix.lower()](path)]
        except UnicodeDecodeError as error:
            raise TaskError(f"{source} is not UTF-8 (byte {error.start}): save it as CSV UTF-8") from error
        name = path.name
    elif path.is_file():
        raise TaskError(f"{source}: questions can be in {', '.join(READERS)}; save a spreadsheet as CSV UTF-8")
    else:
        name, found = _dataset(source)
    if not found:
        raise TaskError(f"{source} has no rows")
    columns = dict.fromkeys(column for _, row in found for column in row)
    locations, rows = zip(*found, strict=True)
    return Table(name, tuple(columns), tuple(rows), tuple(f"{name} {where}" for where in locations))


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        count = Counter(head)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=lambda mark: count[mark]), strict=True)
        try:
            for number, row in enumerate(reader, 1):
                where = f"row {number} (line {reader.line_num})"
                if None in row or None in row.values():
                    n = len(row) - 1 + len(row[None]) if None in row else sum(v is not None for v in row.values())
                    raise TaskError(f"{path.name} {where} has {n} cells; the head has {len(reader.fieldnames or ())}")
                yield where, {str(key).strip(): value for key, value in row.items()}
        except csv.Error as error:
            raise TaskError(f"{path.name} line {reader.line_num + 1}: {error}") from error


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        for line, value in enumerate(jsonl.read(path), 1):
            yield from _objects(path, [value], line)
    except ValueError as error:
        raise TaskError(str(error)) from error


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:  # several values, one a line
        return _jsonl(path)
    return _objects(path, data if isinstance(data, list) else [data], 1)


def _objects(path: Path, values: list[Any], first: int) -> Iterator[tuple[str, Row]]:
    for number, value in enumerate(values, first):
        if not isinstance(value, dict):
            raise TaskError(f"{path.name} row {number} is {value!r}, not an object with the columns' names")
        yield f"row {number}", value


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        rows = pq.read_table(path).to_pylist()
    except ArrowException as error:
        raise TaskError(f"{path.name} is no Parquet file: {error}") from error
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _dataset(source: str) -> tuple[str, list[tuple[str, Row]]]:
    from datasets import load_dataset

    name, _, config = source.partition(":")
    try:
        splits = load_dataset(name, config or None)
    except Exception as error:  # of many kinds: no hub, no such dataset, no such configuration
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TaskError(f"{source} is neither a file nor a dataset that can be loaded: {reason}") from error
    split = next((split for split in SPLITS if split in splits), next(iter(splits)))
    return f"{source}, {split}", [(f"row {number}", row) for number, row in enumerate(splits[split], 1)]


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
}
"""How rows are read, by the file's suffix."""
