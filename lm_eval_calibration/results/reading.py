"""Samples files: our records, or those made of a stock run's lines, with where they stand."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import DOC, RECORD_KEY, Record, ScoredRecord, cluster_of
from lm_eval_calibration.records.batch import UNKNOWN, Batch
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.records.parquet import UnreadableError, belongs_to, parquet_of, read_parquet, records_of
from lm_eval_calibration.records.reading import is_of_other_filter, read_batches, record_of
from lm_eval_calibration.results import stock
from lm_eval_calibration.results.forms.form import Form, NoConfidenceError, Sample
from lm_eval_calibration.results.names import PARQUET

SUFFIX = "_calibration"

T_co = TypeVar("T_co", covariant=True)


class SamplesFile:
    """A ``samples_*.jsonl`` file, of ours or of a stock run.

    Args:
        path: of the file.
        task: its task.
        cluster: field of the docs that says what was drawn together, in place of what the run knew; "" for none, None
            for what the run knew.

    Attributes:
        broken: what of it is left out, as its file of numbers where that can't be read, and why.
    """

    def __init__(self, path: Path, task: str, cluster: str | None = None) -> None:
        self.path, self.task, self.cluster = path, task, cluster
        self.broken: tuple[str, str] | None = None
        self._json = JsonLines(path)
        self._is_parquet = path.suffix == PARQUET

    @cached_property
    def is_stock(self) -> bool:
        """Whether it has lines, and none of them has a record of ours."""
        if self._is_parquet:
            return False
        lines = (line for _, line in self.lines())
        first = next(lines, None)
        return first is not None and RECORD_KEY not in first and not any(RECORD_KEY in line for line in lines)

    def batches(self) -> Iterator[tuple[Batch, list[int]]]:
        """Yield its docs, some at a time, and their rows; of a task with several filters those that have the records.

        Raises:
            UserError: naming file and line: no JSON, no record, a record of another version.
            StockError: a stock run's samples, but not such as records can be made of.
        """
        try:
            if self.cluster and self._is_parquet:
                raise UserError(f"--cluster {self.cluster}: {self.path} holds numbers only, its docs have no fields")
            if (numbers := self._numbers()) is not None:
                for batch, rows in numbers:
                    yield batch if self.cluster is None else replace(batch, cluster=np.zeros_like(batch.cluster)), rows
                return
            if not self.is_stock and self.cluster is None:
                yield from read_batches(self._json, with_names=True)
                return
            for number, lines in self._json.blocks():
                found = dict(enumerate(self._json.values(number, lines), number - 1))
                found = {row: line for row, line in found.items() if not self._is_of_other_filter(line)}
                records = [self._record(row, line) for row, line in found.items()]
                yield Batch.of(records, with_names=True), list(found)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _numbers(self) -> Iterable[tuple[Batch, list[int]]] | None:
        """The docs as Parquet has them, where it is there and belongs to the samples; if it is broken, they are read.

        All are read before the first is used: a file may be broken in the middle.
        """
        if self._is_parquet:
            return read_parquet(self.path)
        try:
            numbers = parquet_of(self.path)
            return list(read_parquet(numbers)) if not self.cluster and belongs_to(numbers, self.path) else None
        except UnreadableError as error:
            self.broken = numbers.name, str(error)
            return None

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines as they stand in the file, each with its row; numbers alone as those of a redacted run."""
        try:
            if self._is_parquet:
                for batch, rows in read_parquet(self.path, with_names=False):
                    yield from ((row, _without_texts(doc)) for row, doc in zip(rows, batch.doc_id, strict=True))
                return
            for number, lines in self._json.blocks(64):
                for row, line in enumerate(self._json.values(number, lines), number - 1):
                    if not isinstance(line, dict):
                        raise UserError(f"{self._json.where(row + 1)}: no {RECORD_KEY!r} record")
                    yield row, line
        except ValueError as error:
            raise UserError(str(error)) from error

    def samples_at(self, rows: Sequence[int]) -> Iterator[Sample]:
        """Yield some lines; raise UserError where one can't be read any more."""
        try:
            if self._is_parquet:
                found: dict[int, Record] = {}
                for batch, here in read_parquet(self.path):
                    which = np.flatnonzero(np.isin(here, rows)).tolist()
                    found |= zip((here[i] for i in which), records_of(batch.take(which)), strict=True)
                for row in rows:
                    line = _without_texts(found[row].doc_id)
                    yield Sample(self._clustered(found[row], line), line)
                return
            for row, line in zip(rows, self._json.values_of(rows), strict=True):
                yield Sample(self._record(row, line), line)
        except ValueError as error:
            raise UserError(str(error)) from error

    @cached_property
    def _reading(self) -> str:
        """How the gold labels of a stock run's lines are read; looks at them all."""
        return stock.find_reading(
            (self._json.where(row + 1), line) for row, line in self.lines() if not self._is_of_other_filter(line)
        )

    @cached_property
    def _first_filter(self) -> Any:
        """The filter that the first line names, if it names one."""
        return next((line.get("filter") for _, line in self.lines()), None)

    def _is_of_other_filter(self, line: Any) -> bool:
        """Whether a line is of another of a doc's filters: in a stock run, where all have numbers, not of the first."""
        if not self.is_stock:
            return is_of_other_filter(line)
        return isinstance(line, Mapping) and bool(line.get("filter") != self._first_filter)

    def _record(self, row: int, line: Any) -> Record:
        where = self._json.where(row + 1)
        if self.is_stock:
            return self._clustered(stock.record(line, self.task, self._reading), line)
        try:
            return self._clustered(record_of(line, where), line)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _clustered(self, record: Record, line: Mapping[str, Any]) -> Record:
        """The record with the cluster that the user's field says."""
        if self.cluster is None:
            return record
        if not self.cluster:
            return replace(record, cluster=None)
        if line.get("doc") is None:
            kept = "" if record.cluster is None else ": without --cluster the clusters of the run itself count"
            raise UserError(f"--cluster {self.cluster}: {self.path} was redacted, its docs have no fields{kept}")
        try:
            return replace(record, cluster=cluster_of(line["doc"], self.cluster))
        except ValueError as error:
            location = f"doc {record.doc_id} of {record.task} in {self.path}"
            raise UserError(f"--cluster {self.cluster}: {location} {error}") from error


def _without_texts(doc_id: Any) -> dict[str, Any]:
    """The line of a doc of which only numbers are there, as that of a redacted run."""
    return {"doc_id": None if doc_id in (None, UNKNOWN) else int(doc_id), "doc": None}


class FormFile(SamplesFile):
    """Somebody else's file, read as a samples file is, less the docs that were scored neither right nor wrong."""

    def __init__(self, path: Path, task: str, form: Form, cluster: str | None = None) -> None:
        super().__init__(path, task, cluster)
        self._form = form
        self.is_stock = False

    def batches(self) -> Iterator[tuple[Batch, list[int]]]:
        """Yield its docs, some at a time, and their rows; raise UserError naming place and value."""
        rows = enumerate(self._samples())
        while part := list(islice(rows, 1024)):
            records = [sample.record for _, sample in part]
            yield Batch.of(records, with_names=True), [row for row, _ in part]

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows, as docs."""
        for row, sample in enumerate(self._samples()):
            yield row, dict(sample.line)

    def samples_at(self, rows: Sequence[int]) -> Iterator[Sample]:
        """Yield some rows."""
        wanted = set(rows)
        found = {row: sample for row, sample in enumerate(self._samples()) if row in wanted}
        yield from (found[row] for row in rows)

    def _samples(self) -> Iterator[Sample]:
        n_docs = n_unscored = 0
        try:
            for sample in self._form.samples(self.path, self.task):
                n_docs += 1
                if isinstance(sample.record, ScoredRecord) and sample.record.correct is None:
                    n_unscored += 1
                else:
                    yield sample._replace(record=self._clustered(sample.record, sample.line))
        except NoConfidenceError as error:
            raise stock.StockError(str(error)) from error
        except ValueError as error:
            raise UserError(str(error)) from error
        if n_unscored:
            reason = f"{self.path}: of {counted(n_docs)} {n_unscored} were scored neither right nor wrong"
            if n_unscored == n_docs:
                raise UserError(reason)
            self.broken = f"a part of {self.task}", reason


class Lines(Sequence[T_co]):
    """Lines of files, each read when it is used.

    Args:
        locations: file and row of each.
        view: what is made of one.
    """

    def __init__(self, locations: Sequence[tuple[SamplesFile, int]], view: Callable[[Sample], T_co]) -> None:
        self._locations, self._view = locations, view

    def __len__(self) -> int:
        return len(self._locations)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> "Lines[T_co]": ...
    def __getitem__(self, index: int | slice) -> "T_co | Lines[T_co]":
        if isinstance(index, slice):
            return Lines(self._locations[index], self._view)
        file, row = self._locations[index]
        return self._view(next(file.samples_at([row])))

    def __iter__(self) -> Iterator[T_co]:
        for file, locations in groupby(self._locations, key=itemgetter(0)):
            yield from map(self._view, file.samples_at([row for _, row in locations]))


def check_cluster_field(cluster: str | None) -> None:
    """Raise UserError where this names no field of docs."""
    if cluster and (not cluster.startswith(DOC) or cluster == DOC):
        raise UserError(f"--cluster {cluster} is no field of the docs such as doc.passage_id")
