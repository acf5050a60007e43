"""The numbers of many records in a Parquet file: a tenth of the size of the samples, and no text of a doc."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lm_eval_calibration.errors import OutputError, UserError
from lm_eval_calibration.records.answer import ScoredRecord
from lm_eval_calibration.records.batch import CHOICES, UNKNOWN, Batch, answers, first_unsound
from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.files import whole_file
from lm_eval_calibration.records.record import DEFINITION_VERSION, Record

SUFFIX = ".parquet"

PARQUET_VERSION = 1
"""Version of the columns."""


class NoParquetFormError(UserError):
    """These docs are texts of a corpus, whose sums are in their samples only."""


class UnreadableError(ValueError):
    """A file is broken, or none of ours: what it was made of may be sound."""


_KEY = b"lm_eval_calibration"
_END = 1 << 16
"""Bytes at each end of a samples file that tell it from others of its size."""

_ROWS = 65536
"""Docs that are read at a time."""

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    {
        **{"row": pa.int64(), "task": _TEXT, "kind": _TEXT, "doc_id": pa.int64()},
        **{"doc_hash": pa.string(), "prompt_hash": pa.string(), "cluster": pa.uint64()},
        **{"confidence": pa.float64(), "correct": pa.int64(), "gold": pa.int64()},
        **{"log_likelihoods": pa.list_(pa.float64()), "kept_from": pa.float64(), "log_probs": pa.list_(pa.float64())},
        **{"large_probs": pa.list_(pa.list_(pa.float64())), "certificate": _TEXT},
    }
)
STORED: dict[str, Any] = {
    "compression": "snappy",  # zstd takes three times as long to read where a task has few docs
    "use_dictionary": [field.name for field in _SCHEMA if field.type == _TEXT],
    "write_statistics": False,
    "write_page_checksum": True,
}
"""Options of the writer. Hashes and numbers hardly repeat: dictionaries and statistics of them are larger than they."""

_NEEDED = ("row", "task", "kind", "doc_hash", "prompt_hash", "cluster", "log_likelihoods", "certificate")

_NAMES = ("doc_hash", "prompt_hash", "certificate")
_LISTS = ("log_likelihoods", "log_probs", "large_probs")


def parquet_of(samples: Path) -> Path:
    """Return where the numbers of a samples file are kept: beside it."""
    name = samples.name
    for suffix in (".gz", ".zst", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return samples.with_name(name + SUFFIX)


def write_parquet(path: Path, batches: Iterator[tuple[Batch, list[int]]], samples: Path) -> int:
    """Write docs and return how many.

    Args:
        path: of the new file, which is there whole or not at all.
        batches: docs with names, and their rows in the samples file.
        samples: the file that they were read from.

    Raises:
        NoParquetFormError: texts of a corpus.
        OutputError: naming the file that can't be written.
    """
    about = {
        "version": PARQUET_VERSION,
        "definitions": DEFINITION_VERSION,
        "samples": _identity(samples) | {"sha256": _sha256(samples)},
    }
    n_docs, writer = 0, None
    first = next(batches, None)
    if first is None:
        return 0
    try:
        with whole_file(path) as file:
            for table in _large(_table(batch, rows, samples) for batch, rows in chain([first], batches)):
                writer = writer or pq.ParquetWriter(
                    file,
                    table.schema.with_metadata({_KEY: json.dumps(about).encode()}),
                    **STORED,
                )
                writer.write_table(table)
                n_docs += len(table)
            if writer is not None:
                writer.close()
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error
    return n_docs


def _large(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, many at a time: what is written together is read together."""
    parts: list[pa.Table] = []
    for table in tables:
        parts.append(table)
        if sum(map(len, parts)) >= _ROWS:
            yield pa.concat_tables(parts)
            parts = []
    if parts:
        yield pa.concat_tables(parts)


def belongs_to(path: Path, samples: Path) -> bool:
    """Whether a Parquet file holds the numbers of this samples file as it is now.

    Raises:
        UnreadableError: it is broken.
        ValueError: it is of another version.
    """
    if not path.is_file():
        return False
    about, found = _about(path), _identity(samples)
    written = about["samples"]
    if {key: written.get(key) for key in ("size", "ends")} != {key: found[key] for key in ("size", "ends")}:
        return False
    return bool(written.get("modified") == found["modified"] or written.get("sha256") == _sha256(samples))


def read_parquet(path: Path, *, with_names: bool = True) -> Iterator[tuple[Batch, list[int]]]:
    """Yield the docs of a file, some at a time, and their rows in the samples file.

    Args:
        path: of the file.
        with_names: as of :meth:`Batch.of`; most of the bytes are names.

    Raises:
        UnreadableError: naming the file, which is broken.
        ValueError: it is of another version.
    """
    try:
        # names of files need not be UTF-8
        file = pq.ParquetFile(pa.OSFile(os.fsencode(path)), page_checksum_verification=True)
        schema = file.schema_arrow  # made anew each time
        _about(path, schema)
        if different := [field.name for field in _SCHEMA if field not in schema]:
            raise UnreadableError(f"{path}: {', '.join(different)}: not there, or of another type")
        columns = [name for name in _SCHEMA.names if with_names or name not in _NAMES]
        is_small = file.metadata.num_rows <= _ROWS  # read at once, in a third of the time less
        whole = file.read(columns, use_threads=False).combine_chunks().to_batches() if is_small else ()
        for part in whole or file.iter_batches(_ROWS, columns=columns):
            for name, column in zip(part.schema.names, part.columns, strict=True):
                if name in _NEEDED and column.null_count:
                    raise UnreadableError(f"{path}: {name} is empty in some row")
            docs, rows = _batch(part), part.column("row").to_pylist()
            if (found := first_unsound(docs)) is not None:
                raise UnreadableError(f"{path}, row {rows[found[0]]}: {found[1]}")
            yield docs, rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"{path}: {error}") from error


def records_of(batch: Batch) -> Iterator[Record]:
    """Yield the docs as records, as far as numbers make them."""
    first = np.concatenate([[0], np.cumsum(batch.n_choices)])
    position = batch.first_position
    large = np.concatenate([[0], np.cumsum(batch.n_large)])
    for i in range(len(batch)):
        common: dict[str, Any] = {
            "task": batch.task[i],
            "doc_id": _known(batch.doc_id[i]),
            "doc_hash": batch.doc_hash[i],
            "prompt_hash": batch.prompt_hash[i],
            "cluster": f"{batch.cluster[i]:016x}" if batch.cluster[i] else None,
            "certificate": json.loads(batch.certificate[i]),
        }
        if batch.n_positions[i] != UNKNOWN:
            here = range(position[i], position[i + 1])
            common["log_probs"] = tuple(batch.log_probs[position[i] : position[i + 1]].tolist())
            common["large_probs"] = tuple(tuple(batch.large_probs[large[j] : large[j + 1]].tolist()) for j in here)
            common["kept_from"] = None if np.isnan(batch.kept_from[i]) else float(batch.kept_from[i])
        if batch.kind[i] == CHOICES:
            log_likelihoods = tuple(batch.log_likelihoods[first[i] : first[i + 1]].tolist())
            yield ChoicesRecord(**common, log_likelihoods=log_likelihoods, gold=_known(batch.gold[i]))
        else:
            confidence = None if np.isnan(batch.confidence[i]) else float(batch.confidence[i])
            yield ScoredRecord(**common, answer_confidence=confidence, answer_correct=_known(batch.correct[i]))


def _known(value: Any) -> int | None:
    return None if value == UNKNOWN else int(value)


def _table(docs: Batch, rows: list[int], samples: Path) -> pa.Table:
    if docs.corpus:
        raise NoParquetFormError(f"{samples}: texts of a corpus have no Parquet form")
    confidence, correct = answers(docs)
    positions = np.maximum(docs.n_positions, 0)
    lacks = docs.n_positions == UNKNOWN
    large = pa.ListArray.from_arrays(_offsets(docs.n_large), pa.array(docs.large_probs))
    columns = {
        "row": pa.array(rows, pa.int64()),
        "task": pa.array(docs.task).dictionary_encode(),
        "kind": pa.array(docs.kind).dictionary_encode(),
        "doc_id": pa.array(docs.doc_id, mask=docs.doc_id == UNKNOWN),
        "doc_hash": pa.array(docs.doc_hash, pa.string()),
        "prompt_hash": pa.array(docs.prompt_hash, pa.string()),
        "cluster": pa.array(docs.cluster),
        "confidence": pa.array(confidence, mask=np.isnan(confidence)),
        "correct": pa.array(correct, mask=correct == UNKNOWN),
        "gold": pa.array(docs.gold, mask=docs.gold == UNKNOWN),
        "log_likelihoods": pa.ListArray.from_arrays(_offsets(docs.n_choices), pa.array(docs.log_likelihoods)),
        "kept_from": pa.array(docs.kept_from, mask=np.isnan(docs.kept_from)),
        "log_probs": pa.ListArray.from_arrays(_offsets(positions), pa.array(docs.log_probs), mask=pa.array(lacks)),
        "large_probs": pa.ListArray.from_arrays(_offsets(positions), large, mask=pa.array(lacks)),
        "certificate": pa.array(docs.certificate).dictionary_encode(),
    }
    return pa.table(columns, schema=_SCHEMA)


def _batch(part: pa.RecordBatch) -> Batch:
    def ints(name: str) -> NDArray[np.int64]:
        return _filled(part.column(name), UNKNOWN)

    def floats(name: str) -> NDArray[np.float64]:
        return np.asarray(part.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)

    def texts(name: str) -> list[str]:
        column = part.column(name)
        if pa.types.is_dictionary(column.type):
            names = np.array(column.dictionary.to_pylist(), dtype=object)
            return list(names[column.indices.to_numpy()].tolist())
        return list(column.to_numpy(zero_copy_only=False).tolist())

    choices, log_probs, large = (part.column(name) for name in _LISTS)
    kind, confidence, correct = texts("kind"), floats("confidence"), ints("correct")
    is_choice = np.array([one == CHOICES for one in kind], dtype=bool)
    confidence, correct = confidence.copy(), correct.copy()
    confidence[is_choice], correct[is_choice] = np.nan, UNKNOWN
    of_position = large.flatten()
    doc_hash, prompt_hash, certificate = (texts(name) if name in part.schema.names else [] for name in _NAMES)
    return Batch(
        texts("task"),
        kind,
        ints("doc_id"),
        np.asarray(part.column("cluster").to_numpy(), dtype=np.uint64),
        ints("gold"),
        correct,
        confidence,
        _lengths(choices, 0),
        np.asarray(choices.flatten().to_numpy(), dtype=np.float64),
        floats("kept_from"),
        _lengths(log_probs, UNKNOWN),
        np.asarray(log_probs.flatten().to_numpy(), dtype=np.float64),
        _lengths(of_position, 0),
        np.asarray(of_position.flatten().to_numpy(), dtype=np.float64),
        doc_hash,
        prompt_hash,
        certificate,
    )


def _lengths(lists: Any, of_none: int) -> NDArray[np.int64]:
    return _filled(lists.value_lengths(), of_none)


def _filled(column: Any, of_none: int) -> NDArray[np.int64]:
    known = column.fill_null(of_none) if column.null_count else column  # slow where there are few docs
    return np.asarray(known.to_numpy(zero_copy_only=False), dtype=np.int64)


def _offsets(lengths: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _about(path: Path, schema: pa.Schema | None = None) -> dict[str, Any]:
    """What a file says of itself; raise ValueError where it is none of ours, or of another version."""
    try:
        metadata = (pq.read_schema(pa.OSFile(os.fsencode(path))) if schema is None else schema).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"{path}: {error}") from error
    try:
        about = json.loads(metadata.get(_KEY, b""))
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("samples"), dict):
        raise UnreadableError(f"{path}: not made by `lm-eval-calibration export --format parquet`")
    for name, version in (("version", PARQUET_VERSION), ("definitions", DEFINITION_VERSION)):
        if about.get(name) != version:
            raise ValueError(f"{path}: Parquet {name} {about.get(name)!r} is not {version}: export it again")
    return about


def _identity(samples: Path) -> dict[str, Any]:
    """Size, a hash of both ends, and when it was last changed."""
    status = samples.stat()
    with samples.open("rb") as file:
        ends = file.read(_END)
        file.seek(max(0, status.st_size - _END))
        ends += file.read()
    return {
        "size": status.st_size,
        "ends": hashlib.sha256(ends).hexdigest(),
        "modified": status.st_mtime_ns,
        "name": samples.name,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
