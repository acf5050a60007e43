"""The worst confident errors of a run: what the model was surest of, and wrong."""

from dataclasses import dataclass

import numpy as np

from lm_eval_calibration.reports.report.explorer.texts import Texts, shortened, texts_of
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
    record, texts = sample.record, Texts() if redact else texts_of(sample)
    return Example(
        record.task,
        record.doc_id,
        record.doc_hash,
        confidence,
        shortened(texts.question, PROMPT_LENGTH, keep="end"),
        shortened(texts.answer, ANSWER_LENGTH, keep="start"),
        shortened(texts.right, ANSWER_LENGTH, keep="start"),
    )
