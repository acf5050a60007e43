"""The harness's samples as the ``datasets`` library exports them: Parquet, whose columns are the fields of a line.

Only multiple choice is read, after the harness's own ``acc`` has agreed, as samples of a stock run are.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_calibration.results.forms.form import About, Form, Sample, at
from lm_eval_calibration.results.names import parse
from lm_eval_calibration.results.stock import find_reading, record

_COLUMNS = {"doc_id", "doc", "target", "arguments", "resps"}


class SamplesParquet(Form):
    """Samples under any name, that of the harness's file or the library's ``train-00000-of-00001.parquet``."""

    name = "the harness's samples as Parquet"

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether it has the columns."""
        try:
            return head.startswith(b"PAR1") and _may_have_columns(path) and set(pq.read_schema(path).names) >= _COLUMNS
        except (pa.ArrowException, OSError):
            return False

    def about(self, path: Path) -> About:
        """Return model and task by folder and name, as the harness gives them."""
        name = parse(path)
        return About(path.resolve().parent.name, [name.task if name.is_samples else name.stem], name.time)

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the docs; raise ValueError naming the row."""
        with at(path, pa.ArrowException, OSError):
            reading = find_reading((f"{path}, row {i + 1}", line) for i, line in enumerate(_lines(path)))
            yield from (Sample(record(line, task, reading), line) for line in _lines(path))


def _may_have_columns(path: Path) -> bool:
    """Whether the names stand in the file's footer: a leaderboard's folder has thousands of other Parquet files."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        file.seek(-min(8 + size, file.seek(0, os.SEEK_END)), os.SEEK_END)
        footer = file.read()
    return all(name.encode() in footer for name in _COLUMNS)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for part in pq.ParquetFile(path).iter_batches(256):
        for line in part.to_pylist():
            if isinstance(line["arguments"], Mapping):  # a struct has the requests that any doc has
                line["arguments"] = {name: one for name, one in line["arguments"].items() if one is not None}
            yield line


FORM = SamplesParquet()
