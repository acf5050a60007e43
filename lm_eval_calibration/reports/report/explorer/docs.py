"""The docs of a report as columns that a page's script reads: numbers of each, and texts cut to what a page holds."""

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.records import ANSWERED, ChoicesRecord, Generation, GenerationRecord, Record
from lm_eval_calibration.reports.report.explorer.texts import Texts, shortened, texts_of, without_examples
from lm_eval_calibration.results import Run

MOST_DOCS = 50_000
"""Of more docs the page has this many, drawn at random."""

MOST_CHARACTERS = 4_200_000
"""Of the compressed data in the page: a page stays below 5 MB."""

LENGTHS = (1_500, 700, 350, 150, 60)
"""Characters of each text, the longest that fit."""

MOST_TOKENS = 600
"""Of a written answer; of a longer one the last ones, where the answer stands."""


NUMBERS = ("id", "hash", "gold", "answer", "probs", "tokens", "span", "outcome")
"""Columns of a doc beside its task, confidence and correct."""

NO_ANSWER = {
    "truncated": "cut off before an answer",
    "not_found": "no answer found in the text",
    "empty": "empty",
    "refused": "refused",
}
"""What became of answers that are none, in words."""


class ExplorableDocs(NamedTuple):
    """Docs for a page's script.

    Attributes:
        data: base64 of zlib-compressed JSON: a column a key.
        n_docs: docs in it.
        n_all: docs of the run that could be.
        has_texts: whether the texts of docs are there.
        length: characters that texts were cut to; 0 where none is there.
        outcomes: what became of answers that are none, in words by the name in the data.
    """

    data: str
    n_docs: int
    n_all: int
    has_texts: bool
    length: int
    outcomes: dict[str, str]


def explorable_docs(run: Run, *, redact: bool = False) -> ExplorableDocs:
    """Return the docs of a run for the page, without their texts if redacted."""
    from tqdm import tqdm

    n_all = len(run)
    chosen = np.arange(n_all)
    if n_all > MOST_DOCS:
        chosen = np.sort(np.random.default_rng(0).choice(n_all, MOST_DOCS, replace=False))
    numbers: dict[str, list[Any]] = {name: [] for name in NUMBERS}
    texts, wanted = [], set(chosen.tolist())
    for i, sample in enumerate(tqdm(run.samples, desc="Questions", unit="doc", delay=2, leave=False)):
        if i not in wanted:
            continue
        for name, value in _numbers_of(sample.record).items():
            numbers[name].append(value)
        texts.append(Texts() if redact else texts_of(sample))
    task, confidence, correct = _outcomes(run)
    columns = {
        "tasks": list(run.tasks),
        "task": task[chosen].tolist(),
        "confidence": [None if math.isnan(value) else value for value in confidence[chosen].tolist()],
        "correct": correct[chosen].tolist(),
        **numbers,
    }
    return _packed(columns, texts, n_all)


def _outcomes(run: Run) -> tuple[Any, Any, Any]:
    """[N] index of the task, confidence (nan where undefined) and correct (-1 where nobody can tell) of each doc."""
    docs = list(run.docs.values())
    task = np.repeat(np.arange(len(docs)), [len(of_task) for of_task in docs])
    confidence = np.concatenate([np.array(of_task.confidence, dtype=float) for of_task in docs])
    return task, confidence, np.concatenate([np.array(of_task.correct, dtype=int) for of_task in docs])


def _numbers_of(record: Record) -> dict[str, Any]:
    """What stands beside confidence and correct: of choices their probabilities, of written answers their tokens'."""
    found: dict[str, Any] = dict.fromkeys(NUMBERS)
    found.update(id=record.doc_id, hash=record.doc_hash[:12])
    if isinstance(record, ChoicesRecord):
        found.update(gold=record.gold)
        if record.has_likelihood:
            found.update(answer=record.answer, probs=[round(p, 4) for p in record.probs.tolist()])
    elif isinstance(record, GenerationRecord):
        found.update(_written(record.generation))
    return found


def _written(written: Generation) -> dict[str, Any]:
    """What became of a written answer, unless it is one, and the probabilities of its tokens."""
    found: dict[str, Any] = {"outcome": None if written.outcome == ANSWERED else written.outcome}
    if written.token_log_probs is not None:
        thought = written.thought_log_probs or ()
        probs = np.exp((*thought, *written.token_log_probs)).round(2).tolist()
        found["tokens"] = probs[-MOST_TOKENS:]
        if written.answer is not None and written.answer.tokens is not None:
            shift = len(thought) - max(0, len(probs) - MOST_TOKENS)
            found["span"] = [max(0, end + shift) for end in written.answer.tokens]
    return found


def _packed(columns: dict[str, Any], texts: Sequence[Texts], n_all: int) -> ExplorableDocs:
    """The columns with the longest texts that fit."""
    task = columns["task"]
    questions: list[str | None] = [None] * len(texts)
    for which in range(len(columns["tasks"])):
        rows = [i for i, of_doc in enumerate(task) if of_doc == which]
        for i, text in zip(rows, without_examples([texts[i].question for i in rows]), strict=True):
            questions[i] = text
    outcomes = {name: words for name, words in NO_ANSWER.items() if name in columns["outcome"]}
    has_texts = any(text is not None for of_doc in texts for text in of_doc[:2])
    for length in LENGTHS if has_texts else ():
        data = _compressed({**columns, **_cut(questions, texts, length)})
        if len(data) <= MOST_CHARACTERS:
            return ExplorableDocs(data, len(task), n_all, True, length, outcomes)
    return ExplorableDocs(_compressed(columns), len(task), n_all, False, 0, outcomes)


def _cut(questions: Sequence[str | None], texts: Sequence[Texts], length: int) -> dict[str, list[Any]]:
    return {
        "question": [shortened(text, length, keep="end") for text in questions],
        "written": [shortened(of_doc.answer, length, keep="end") for of_doc in texts],
        "right": [shortened(of_doc.right, length, keep="end") for of_doc in texts],
        "choices": [[shortened(text, length // 4, keep="start") for text in of_doc.choices] for of_doc in texts],
    }


def _compressed(columns: dict[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 6)).decode()
