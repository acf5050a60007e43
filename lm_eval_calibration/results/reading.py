"""Samples line by line: our record, or one made of a stock run's line, with where it stands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import DOC, RECORD_KEY, Record, cluster_of
from lm_eval_calibration.records.reading import is_of_other_filter, read_lines, record_of
from lm_eval_calibration.results import stock
from lm_eval_calibration.results.files import Source, task_of

SUFFIX = "_calibration"

T_co = TypeVar("T_co", covariant=True)


class Sample(NamedTuple):
    """A line of a samples file.

    Attributes:
        record: of the doc.
        line: all that was logged of it.
        start: its first byte in the file.
    """

    record: Record
    line: Mapping[str, Any]
    start: int


class SamplesFile:
    """A ``samples_*.jsonl`` file, of ours or of a stock run.

    Args:
        path: of the file.
        cluster: field of the docs that says what was drawn together, in place of what the run knew; "" for none, None
            for what the run knew.
    """

    def __init__(self, path: Path, cluster: str | None = None) -> None:
        self.path, self.cluster = path, cluster
        self.task = task_of(path)

    @cached_property
    def is_stock(self) -> bool:
        """Whether its first line has no record of ours."""
        first = next((line for _, _, line in self._lines()), None)
        return first is not None and RECORD_KEY not in first

    def samples(self, progress: Callable[[int], Any] = lambda n_bytes: None) -> Iterator[Sample]:
        """Yield its lines; of a task with several filters those of the one that has the records.

        Args:
            progress: is called with the bytes of each line.

        Raises:
            UserError: naming file and line: no JSON, no record, a record of another version.
            StockError: a stock run's samples, but not such as records can be made of.
        """
        last = 0
        for number, start, line in self._lines():
            progress(start - last)
            if not is_of_other_filter(line):
                yield Sample(self._record(number, line), line, start)
            last = start
        progress(self.path.stat().st_size - last)

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines as they stand in the file, each with its first byte."""
        for _, start, line in self._lines():
            yield start, line

    def sample_at(self, start: int) -> Sample:
        """Return the line that begins at this byte."""
        _, _, line = next(self._lines(start))
        return Sample(self._record(1, line), line, start)

    @cached_property
    def _reading(self) -> str:
        """How the gold labels of a stock run's lines are read; looks at them all."""
        return stock.find_reading((f"{self.path}, line {number}", line) for number, _, line in self._lines())

    def _lines(self, start: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
        try:
            yield from read_lines(self.path, start)
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from error

    def _record(self, number: int, line: Mapping[str, Any]) -> Record:
        if self.is_stock:
            reading = self._reading
            return self._clustered(stock.record(line, self.task, reading), line)
        try:
            record = record_of(line, self.path, number)
        except ValueError as error:
            raise UserError(str(error)) from error
        return self._clustered(record, line)

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


class Lines(Sequence[T_co]):
    """Lines of files, each read when it is used.

    Args:
        locations: file and first byte of each.
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
        file, start = self._locations[index]
        return self._view(file.sample_at(start))


def read_samples(
    sources: Sequence[Source], left_out: dict[str, str], cluster: str | None = None
) -> Iterator[tuple[SamplesFile, Sample]]:
    """Yield every line of these sources and its file; a bar shows how far, where it takes more than a moment.

    Args:
        sources: from :func:`~lm_eval_calibration.results.files.find_sources`.
        left_out: takes the names of the stock tasks that are not read, each with its reason: those that are no
            multiple choice, those that contradict themselves, and those whose calibrated twin is here too.
        cluster: as of :class:`SamplesFile`.

    Raises:
        UserError: naming file and line: no JSON, no record, a record of another version, the same doc twice, or
            nothing at all that could be read.
    """
    from tqdm import tqdm

    check_cluster_field(cluster)
    files = [SamplesFile(path, cluster) for source in sources for path in source.samples]
    names = {file.task for file in files}
    seen: dict[str, dict[tuple[int | None, str], Path]] = {}
    total = sum(file.path.stat().st_size for file in files)
    with tqdm(total=total, desc="Reading samples", unit="B", unit_scale=True, delay=2, leave=False) as bar:
        for file in files:
            try:
                if file.task + SUFFIX in names and file.is_stock:
                    raise stock.StockError(f"{file.task + SUFFIX} is here too")
                for sample in file.samples(bar.update):
                    _refuse_twice(sample, file.path, seen)
                    yield file, sample
            except stock.StockError as error:
                left_out[file.task] = str(error)
    if not seen:
        reasons = "; ".join(left_out.values()) or "no lines"
        raise UserError(f"{', '.join(str(file.path) for file in files[:3])}: nothing can be read: {reasons}")


def check_cluster_field(cluster: str | None) -> None:
    """Raise UserError where this names no field of docs."""
    if cluster and (not cluster.startswith(DOC) or cluster == DOC):
        raise UserError(f"--cluster {cluster} is no field of the docs such as doc.passage_id")


def _refuse_twice(sample: Sample, path: Path, seen: dict[str, dict[tuple[int | None, str], Path]]) -> None:
    record = sample.record
    docs, doc = seen.setdefault(record.task, {}), (record.doc_id, record.doc_hash)
    if doc in docs:
        locations = f"twice in {path}" if docs[doc] == path else f"in {docs[doc]} and in {path}"
        raise UserError(f"doc {record.doc_id} of {record.task} is {locations}: name the samples of one run")
    docs[doc] = path
