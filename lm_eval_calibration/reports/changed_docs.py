"""Docs that one run answers right and another wrong."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lm_eval_calibration.reports.report.explorer.texts import Texts, shortened, texts_of
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.alignment import pair_by_hash
from lm_eval_calibration.results.task_docs import TaskDocs

MOST = 20
"""Docs that are shown of each side, the surest wrong answers first."""

QUESTION, ANSWER = 400, 160
"""Characters that are shown of a question (its end) and of an answer."""


class ChangedDoc(NamedTuple):
    """A doc that changed sides: its number in its split, its confidence and answer in runs a and b.

    Confidence is nan where it is undefined. ``question`` is the prompt's end; texts are None where they are left out or
    were not logged.
    """

    task: str
    doc_id: int | None
    confidence_a: float
    confidence_b: float
    question: str | None = None
    answer_a: str | None = None
    answer_b: str | None = None
    right: str | None = None


class ChangedDocs(NamedTuple):
    """Docs that both runs have (``n_both``, with a known outcome in both), and those of them that changed sides.

    ``lost`` are right in a and wrong in b, those of which b is surest; ``won`` the reverse, those of which a was.
    """

    n_both: int
    n_lost: int
    n_won: int
    lost: tuple[ChangedDoc, ...]
    won: tuple[ChangedDoc, ...]


class PairedDoc(NamedTuple):
    """A doc that two runs have, with a known outcome in both; ``a``, ``b``: its index among the task's docs in each."""

    task: str
    a: int
    b: int
    correct_a: int
    correct_b: int
    confidence_a: float
    confidence_b: float


def changed_docs(a: Run, b: Run, tasks: Sequence[str], *, redact: bool = False, most: int = MOST) -> ChangedDocs:
    """Return the docs of some tasks that changed sides between two runs, paired by hash as all comparisons are.

    Args:
        a: one run.
        b: the other.
        tasks: that both have.
        redact: without texts.
        most: docs that are described of each side.
    """
    pairs = [pair for task in tasks for pair in paired_docs(a, b, task)]
    lost = [pair for pair in pairs if pair.correct_a > pair.correct_b]
    won = [pair for pair in pairs if pair.correct_a < pair.correct_b]
    lost.sort(key=lambda pair: _falling(pair.confidence_b))
    won.sort(key=lambda pair: _falling(pair.confidence_a))
    described = (tuple(_described(pair, a, b, redact) for pair in part[:most]) for part in (lost, won))
    return ChangedDocs(len(pairs), len(lost), len(won), *described)


def paired_docs(a: Run, b: Run, task: str) -> list[PairedDoc]:
    """Return the docs of a task that both runs have, by the hash of the doc; of equal docs as many as both have."""
    one, other = a.docs[task], b.docs[task]
    return [
        PairedDoc(task, i, j, one.correct[i], other.correct[j], one.confidence[i], other.confidence[j])
        for i, j in pair_by_hash(one.doc_hashes, other.doc_hashes)
        if min(one.correct[i], other.correct[j]) >= 0
    ]


def _falling(confidence: float) -> float:
    return 1.0 if math.isnan(confidence) else -confidence


def _described(pair: PairedDoc, a: Run, b: Run, redact: bool) -> ChangedDoc:
    """The doc, without texts if redacted."""
    docs = a.docs[pair.task]
    one, other = (Texts(), Texts()) if redact else (_texts(docs, pair.a), _texts(b.docs[pair.task], pair.b))
    doc_id = docs.doc_ids[pair.a]
    return ChangedDoc(
        pair.task,
        None if doc_id < 0 else doc_id,
        pair.confidence_a,
        pair.confidence_b,
        shortened(one.question, QUESTION, keep="end"),
        *(shortened(text, ANSWER, keep="end") for text in (one.answer, other.answer, one.right)),
    )


def _texts(docs: TaskDocs, index: int) -> Texts:
    file, row = docs.locations[index]
    return texts_of(next(file.samples_at([row])))
