"""Docs for recalibration from ``samples_*.jsonl`` files and the folders that hold them."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.recalibration import Docs
from lm_eval_calibration.records import ChoicesRecord, CorpusRecord, Record
from lm_eval_calibration.records.clusters import as_numbers
from lm_eval_calibration.results import find_sources, read_samples
from lm_eval_calibration.results.grouping import TASK, check_grouping, group_of


def read_docs(results: Sequence[Path], by: str | None = None, cluster: str | None = None) -> tuple[Docs, int]:
    """Read docs, by task and doc id, and how many were left out: of a broken gold label, or an empty answer.

    Args:
        results: samples files, results files, or folders searched for them at any depth; stock runs too.
        by: what their groups are: "task", or a field of the dataset's row, as in "doc.subject" or "doc.meta.site".
        cluster: field of the docs that says what was drawn together; "" for none. What the run knew where not given.

    Raises:
        UserError: no samples, a line without a record, a doc without the field or without probabilities, the same
            doc twice, texts of a corpus, or docs with choices and generated answers together.
    """
    rows: list[tuple[Record, str]] = []
    left_out: dict[str, str] = {}
    for file, sample in read_samples(find_sources(results), left_out, cluster):
        record = sample.record
        if isinstance(record, CorpusRecord):
            raise UserError(f"{file.path}: {record.task} is a corpus, which has no answers to recalibrate")
        if rows and record.kind != rows[0][0].kind:
            raise UserError(
                f"{file.path}: {record.task} is {record.kind}, but {rows[0][0].task} is {rows[0][0].kind}: "
                "recalibrate them one after the other"
            )
        rows.append((record, _group(record, sample.line.get("doc"), by, file.path)))
    for task, reason in left_out.items():
        warnings.warn(f"{task} is left out: {reason}", stacklevel=2)
    sound = [row for row in rows if _is_sound(row[0])]
    if not sound:
        raise UserError(f"{', '.join(map(str, results))}: no doc has a sound gold label and a confidence")
    sound.sort(key=lambda row: (row[0].task, -1 if row[0].doc_id is None else row[0].doc_id))
    return _docs([record for record, _ in sound], [group for _, group in sound]), len(rows) - len(sound)


def _docs(records: Sequence[Record], groups: Sequence[str]) -> Docs:
    """Docs of records that all have an answer and know whether it is right."""
    hashes, ids = [record.doc_hash for record in records], as_numbers([record.cluster for record in records])
    choices = [record for record in records if isinstance(record, ChoicesRecord)]
    if not choices:
        answers = np.array([(record.confidence, record.correct) for record in records], dtype=np.float64)
        return Docs.of_answers(answers[:, 0], answers[:, 1], hashes, groups, ids)
    for record in choices:
        if max(record.log_likelihoods) == -math.inf:
            raise UserError(f"doc {record.doc_id} of {record.task}: every choice has log-likelihood -inf")
    labels = [record.gold for record in choices if record.gold is not None]
    return Docs.of([record.log_likelihoods for record in choices], labels, hashes, groups, ids)


def _is_sound(record: Record) -> bool:
    """Whether it is known if the answer is right, and how sure the model was of it."""
    return record.correct is not None and (isinstance(record, ChoicesRecord) or record.confidence is not None)


def _group(record: Record, doc: Any, by: str | None, path: Path) -> str:
    if by is None:
        return ""
    check_grouping(by)
    return record.task if by == TASK else group_of(doc, by, f"doc {record.doc_id} of {record.task} in {path}")
