"""The range of the default metrics over all docs: texts without an answer all right, or all wrong.

Metrics of confidence are over the docs that have an answer. What they could have been over all docs lies between these
two, each text that holds no answer at the mean probability of its tokens. (The harness's accuracy takes them for
wrong.)
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval_calibration.records import ANSWERED, GenerationRecord
from lm_eval_calibration.tasks.confidences.answer import WrittenSource


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


MISSING_RIGHT, MISSING_WRONG = MissingAnswers("missing_right", 1), MissingAnswers("missing_wrong", 0)
