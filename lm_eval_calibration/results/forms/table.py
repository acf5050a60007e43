"""Tables (CSV, Parquet, JSON lines) with a row a doc: confidence and outcome of its answer, or its choices and gold."""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError, nearest
from lm_eval_calibration.records import ChoicesRecord, Record, ScoredRecord
from lm_eval_calibration.records.jsonl import JsonLines

SUFFIXES = (".csv", ".parquet", ".jsonl")

FIELDS = ("confidence", "correct", "probabilities", "log_likelihoods", "gold", "task", "doc_id")
"""What a column can be."""

Row = Mapping[str, Any]


def parse_columns(text: str) -> dict[str, str]:
    """Return the column of each field in ``confidence=p,correct=ok``; a field alone is its own column.

    Raises:
        UserError: an unknown field, or not what a metric needs.
    """
    found = {}
    for part in text.split(","):
        field, _, column = (piece.strip() for piece in part.partition("="))
        if field not in FIELDS:
            raise UserError(
                f"--columns {text}: no field {field!r}{nearest(field, FIELDS)}; there are {', '.join(FIELDS)}"
            )
        found[field] = column or field
    has_choices = "gold" in found and ("probabilities" in found) != ("log_likelihoods" in found)
    if not has_choices and not {"confidence", "correct"} <= found.keys():
        raise UserError(f"--columns {text}: name confidence and correct, or gold and probabilities or log_likelihoods")
    return found


def read_table(path: Path, columns: str) -> Iterator[tuple[Record, Row]]:
    """Yield the record and the row of each doc.

    Args:
        path: of the table.
        columns: as ``--columns`` names them.

    Raises:
        UserError: naming file, row, column and value.
    """
    fields = parse_columns(columns)
    for number, row in enumerate(_rows(path), 1):
        where = f"{path}, row {number}"
        if missing := [column for column in fields.values() if column not in row]:
            raise UserError(f"{where}: no column {missing[0]!r}; there are {', '.join(map(str, row))}")
        try:
            yield _record({field: row[column] for field, column in fields.items()}, path.stem, number - 1, row), row
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error


def _record(values: Row, stem: str, number: int, row: Row) -> Record:
    doc_id = _whole("doc_id", values["doc_id"]) if "doc_id" in values else number
    # Rows of equal numbers are different docs: with one hash they would all be in one fold.
    identity = {"id": doc_id} if "doc_id" in values else {"row": number, **row}
    text = json.dumps(identity, sort_keys=True, default=str)
    common: dict[str, Any] = {
        "task": str(values.get("task", stem)),
        "doc_id": doc_id,
        "doc_hash": hashlib.sha256(text.encode()).hexdigest(),
        "prompt_hash": "",
        "certificate": {"source": "a table", "distributions": "none"},
    }
    if "gold" not in values:
        correct = _whole("correct", values["correct"])
        confidence = _number("confidence", values["confidence"])
        return ScoredRecord(**common, answer_confidence=confidence, answer_correct=correct)
    if "log_likelihoods" in values:
        logs = [_number("log_likelihoods", value) for value in _list("log_likelihoods", values["log_likelihoods"])]
    else:
        probs = [_number("probabilities", value) for value in _list("probabilities", values["probabilities"])]
        if not all(0 <= p <= 1 for p in probs) or abs(sum(probs) - 1) > 1e-4:
            raise ValueError(f"probabilities are {probs}, which are none or don't sum to 1")
        logs = [math.log(p) if p else -math.inf for p in probs]
    if logs and max(logs) > 1e-3:
        raise ValueError(f"log_likelihoods are {logs}; none is above 0")
    return ChoicesRecord(**common, log_likelihoods=tuple(logs), gold=_whole("gold", values["gold"]))


def _list(field: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = value.replace(";", " ").split()
    if not isinstance(value, list):
        raise ValueError(f"{field} is {value!r:.60}, not a list")
    return value


def _number(field: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{field} is {value!r:.60}, not a number") from None
    if math.isnan(number):
        raise ValueError(f"{field} is nan")
    return number


def _whole(field: str, value: Any) -> int:
    known = {"true": 1, "false": 0}
    if field == "correct" and str(value).strip().lower() in known:
        return known[str(value).strip().lower()]
    number = _number(field, value)
    if not number.is_integer():
        raise ValueError(f"{field} is {value!r}, not a whole number")
    return int(number)


def _rows(path: Path) -> Iterator[Row]:
    read = _READERS.get(path.suffix)
    if read is None:
        raise UserError(f"{path}: a table is a file {', '.join(SUFFIXES)}")
    try:
        yield from read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), 1):
            if None in row or None in row.values():
                raise ValueError(f"{path}, row {number}: not as many cells as the head has")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for part in pq.ParquetFile(path).iter_batches():
        yield from part.to_pylist()


def _jsonl(path: Path) -> Iterator[Row]:
    file = JsonLines(path)
    for number, lines in file.blocks():
        for place, row in enumerate(file.values(number, lines), number):
            if not isinstance(row, dict):
                raise ValueError(f"{file.where(place)}: {row!r:.60} is no object")
            yield row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {".csv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}
