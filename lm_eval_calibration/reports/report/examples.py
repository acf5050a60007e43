"""The worst confident errors of a run: what the model was surest of, and wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.records import ChoicesRecord
from lm_eval_calibration.results import Run, Sample

HOW_MANY = 10
PROMPT_LENGTH, ANSWER_LENGTH = 700, 200


@dataclass(frozen=True)
class Example:
    """An answer that was wrong: end of the prompt, answer and right answer are None where texts are left out."""

    task: str
    doc_id: int | None
    doc_hash: str
    confidence: float
    prompt: str | None
    answer: str | None
    right: str | None


def worst_errors(run: Run, *, redact: bool = False, how_many: int = HOW_MANY) -> tuple[Example, ...]:
    """Return the wrong answers of the highest confidence, the surest first; without their texts, if redacted."""
    confidence = np.concatenate([np.array(docs.confidence) for docs in run.docs.values()])
    correct = np.concatenate([np.array(docs.correct) for docs in run.docs.values()])
    wrong = np.flatnonzero((correct == 0) & ~np.isnan(confidence))
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:how_many]]
    return tuple(_example(run.samples[i], float(confidence[i]), redact=redact) for i in worst.tolist())


def _example(sample: Sample, confidence: float, *, redact: bool) -> Example:
    record = sample.record
    texts = (None, None, None) if redact else _texts(sample)
    return Example(record.task, record.doc_id, record.doc_hash, confidence, *texts)


def _texts(sample: Sample) -> tuple[str | None, str | None, str | None]:
    """Prompt, answer and right answer, cut to what fits; None where a redacted run logged none."""
    record, requests = sample.record, _requests(sample.line)
    if not requests:
        return None, None, None
    if not isinstance(record, ChoicesRecord):
        prompt, answer, right = requests[0][0], _first(sample.line.get("resps")), sample.line.get("target")
    else:
        best = record.answer
        are_inputs = len({text for _, text in requests}) == 1  # the choices are in the prompts
        prompt = requests[best][0]
        answer, right = (requests[i][0 if are_inputs else 1] if i is not None else None for i in (best, record.gold))
    return _end(prompt), _start(answer), _start(right)


def _requests(line: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    arguments = line.get("arguments")
    rows = [list(row.values()) for row in arguments.values()] if isinstance(arguments, Mapping) else arguments or []
    return [(row[0], row[1]) for row in rows if isinstance(row, Sequence) and len(row) > 1]


def _first(responses: Any) -> Any:
    while isinstance(responses, list | tuple) and responses:
        responses = responses[0]
    return responses


def _end(text: Any) -> str:
    plain = str(text).strip()
    return plain if len(plain) <= PROMPT_LENGTH else "…" + plain[-PROMPT_LENGTH:]


def _start(text: Any) -> str | None:
    if text is None:
        return None
    plain = str(text).strip()
    return plain if len(plain) <= ANSWER_LENGTH else plain[:ANSWER_LENGTH] + "…"
