"""Docs for recalibration from ``samples_*.jsonl`` files and the folders that hold them."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.records import Record, read_samples

_DOC = "doc."


def read_docs(results: Sequence[Path], by: str | None = None) -> tuple[Docs, int]:
    """Read docs, by task and doc id, and how many were left out because their gold label is broken.

    Args:
        results: samples files, or folders searched for ``samples_*.jsonl`` at any depth.
        by: what their groups are: "task", or a field of the dataset's row, as in "doc.subject" or "doc.meta.site".

    Raises:
        UserError: no samples, a line without a record, a doc without the field or without probabilities, or the
            same doc twice.
    """
    rows: dict[tuple[str, int | None, str], tuple[Record, str, Path]] = {}
    for path in _files(results):
        for record, group in _rows(path, by):
            if record.kind != "multiple_choice":
                raise UserError(f"{path}: {record.task} is a {record.kind}, which has no choices to recalibrate")
            key = record.task, record.doc_id, record.doc_hash
            if key in rows:
                places = f"{rows[key][2]} and in {path}"
                raise UserError(f"doc {record.doc_id} of {record.task} is in {places}: name the samples of one run")
            rows[key] = record, group, path
    sound = [row for row in rows.values() if row[0].gold is not None]
    if not sound:
        raise UserError(f"{', '.join(map(str, results))}: no doc has a sound gold label")
    sound.sort(key=lambda row: (row[0].task, -1 if row[0].doc_id is None else row[0].doc_id))
    records = [record for record, _, _ in sound]
    for record in records:
        if max(record.log_likelihoods) == -math.inf:
            raise UserError(f"doc {record.doc_id} of {record.task}: every choice has log-likelihood -inf")
    docs = Docs.of(
        [record.log_likelihoods for record in records],
        [record.gold for record in records if record.gold is not None],
        [record.doc_hash for record in records],
        [group for _, group, _ in sound],
    )
    return docs, len(rows) - len(sound)


def _files(results: Sequence[Path]) -> Iterator[Path]:
    for path in results:
        if not path.exists():
            raise UserError(f"{path} does not exist")
        found = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no samples_*.jsonl: run the harness with --log_samples --output_path {path}")
        yield from found


def _rows(path: Path, by: str | None) -> Iterator[tuple[Record, str]]:
    try:
        for record, doc in read_samples(path):
            yield record, _group(record, doc, by, path)
    except ValueError as error:
        raise UserError(str(error)) from error


def _group(record: Record, doc: Any, by: str | None, path: Path) -> str:
    if by is None:
        return ""
    if by == "task":
        return record.task
    if not by.startswith(_DOC):
        raise UserError(f"{by} is no way to group docs: it is task, or a field of the docs such as doc.subject")
    value = doc
    for name in by.removeprefix(_DOC).split("."):
        if not isinstance(value, dict) or name not in value:
            fields = ", ".join(map(str, value)) if isinstance(value, dict) else "no fields"
            raise UserError(
                f"--by {by}: doc {record.doc_id} of {record.task} in {path} has no {name!r}, it has {fields}"
            )
        value = value[name]
    return "none" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
