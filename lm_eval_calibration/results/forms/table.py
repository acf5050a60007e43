"""Tables (CSV, Parquet, JSON lines) with a row a doc: confidence and outcome of its answer, or its choices and gold."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError, nearest
from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.results.forms.form import About, Form, Sample, at, number, whole

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


TASK = "all_docs"
"""Name of the task of a table without a column that names one: the same in every table, so that tables compare."""


class Table(Form):
    """A table; it is none of :func:`~lm_eval_calibration.results.forms.registry.forms`, for only ``--columns`` tells.

    Args:
        columns: which of its columns are what, as ``--columns`` has it.

    Raises:
        UserError: an unknown field, or not what a metric needs.
    """

    name = "a table"

    def __init__(self, columns: str) -> None:
        self.fields = parse_columns(columns)

    def about(self, path: Path) -> About:
        """Return the file's name as the model's; a column may name tasks."""
        return About(path.stem, [TASK])

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the rows; raise ValueError naming row, column and value."""
        for place, row in enumerate(_rows(path)):
            where = f"{path}, row {place + 1}"
            if missing := [column for column in self.fields.values() if column not in row]:
                raise UserError(f"{where}: no column {missing[0]!r}; there are {', '.join(map(str, row))}")
            values = {field: row[column] for field, column in self.fields.items()}
            with at(where):
                # Rows of equal numbers are different docs: with one hash they would all be in one fold.
                doc_id = whole("doc_id", values["doc_id"]) if "doc_id" in values else place
                identity = {"id": doc_id} if "doc_id" in values else {"row": place, **row}
                found = {"doc_id": doc_id, **_numbers(values)}
                line = {"doc": self._doc(row), "target": values.get("gold")}
                yield self.sample(str(values.get("task", task)), place, identity, found, line)

    def _doc(self, row: Row) -> dict[str, Any]:
        """What a row says of its doc: the answer and its outcome are no fields by which docs could be grouped."""
        answered = {column for field, column in self.fields.items() if field not in ("task", "doc_id")}
        return {column: value for column, value in row.items() if column not in answered}


def _numbers(values: Row) -> dict[str, Any]:
    if "gold" not in values:
        correct = whole("correct", values["correct"])
        return {"confidence": number("confidence", values["confidence"]), "correct": correct}
    if "log_likelihoods" in values:
        return {"log_likelihoods": _list("log_likelihoods", values), "gold": whole("gold", values["gold"])}
    probs = [number("probabilities", value) for value in _list("probabilities", values)]
    if not all(0 <= p <= 1 for p in probs) or abs(sum(probs) - 1) > 1e-4:
        raise ValueError(f"probabilities are {probs}, which are none or don't sum to 1")
    return {
        "log_likelihoods": [math.log(p) if p else -math.inf for p in probs],
        "gold": whole("gold", values["gold"]),
    }


def _list(field: str, values: Row) -> list[Any]:
    value = values[field]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = value.replace(";", " ").split()
    if not isinstance(value, list):
        raise ValueError(f"{field} is {value!r:.60}, not a list")
    return value


def _rows(path: Path) -> Iterator[Row]:
    read = _READERS.get(path.suffix)
    if read is None:
        raise UserError(f"{path}: a table is a file {', '.join(_READERS)}")
    try:
        yield from read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for place, row in enumerate(csv.DictReader(file, strict=True), 1):
            if None in row or None in row.values():
                raise ValueError(f"{path}, row {place}: not as many cells as the head has")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for part in pq.ParquetFile(path).iter_batches():
        yield from part.to_pylist()


def _jsonl(path: Path) -> Iterator[Row]:
    file = JsonLines(path)
    for first, lines in file.blocks():
        for place, row in enumerate(file.values(first, lines), first):
            if not isinstance(row, dict):
                raise ValueError(f"{file.where(place)}: {row!r:.60} is no object")
            yield row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {".csv": _csv, ".parquet": _parquet, ".jsonl": _jsonl}
