"""The range of the default metrics over all docs: texts without an answer all right, or all wrong.

Metrics of confidence are over the docs that have an answer. What they could have been over all docs lies between these
two, each text that holds no answer at the mean probability of its tokens. (The harness's accuracy takes them for
wrong.) Of the final answer's tokens such a text has none: there it is sure and right, or sure and wrong.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval_calibration.records import ANSWERED, GenerationRecord, ScoredAnswer
from lm_eval_calibration.tasks.confidences.answer import ANSWER, WrittenSource
from lm_eval_calibration.tasks.confidences.source import Table


class MissingAnswers(WrittenSource):
    """The default confidence, with an outcome for texts without an answer.

    Args:
        name: of the source.
        correct: 1 or 0, the outcome that they are given.
    """

    has_trust_rows = False

    def __init__(self, name: str, correct: int) -> None:
        self.name, self.correct = name, correct

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs, those without an answer with this outcome."""
        return (record if self._has_answer(record) else record.as_if_answered(self.correct) for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the text holds no answer but has tokens."""
        is_written = isinstance(record, GenerationRecord) and record.generation.mean_probability is not None
        return is_written and not self._has_answer(record)

    @staticmethod
    def _has_answer(record: Any) -> bool:
        return bool(record.generation.outcome == ANSWERED)


class MissingFinalAnswers(MissingAnswers):
    """The final answer's confidence; texts without an answer have none, so they are taken to be as sure as can be."""

    beside = ANSWER

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the metrics among these of which this is the least and the most that they can be, or about that."""
        return super().shown([name for name in names if name in ("brier_top_label", "ece")], options, table)

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs, those without an answer with confidence 1 and this outcome."""
        for record, doc in zip(records, ANSWER.view(records), strict=True):
            is_there = self._has_answer(record)
            yield doc if is_there else ScoredAnswer(record.task, record.doc_id, 1.0, self.correct)


MISSING_RIGHT, MISSING_WRONG = MissingAnswers("missing_right", 1), MissingAnswers("missing_wrong", 0)
FINAL_MISSING = (MissingFinalAnswers("answer_missing_right", 1), MissingFinalAnswers("answer_missing_wrong", 0))
