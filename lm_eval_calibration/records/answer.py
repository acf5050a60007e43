"""The record of a doc of which only a confidence is known, and whether the answer is right."""

from dataclasses import dataclass
from typing import ClassVar

from lm_eval_calibration.records.record import AnswerRecord


@dataclass(frozen=True, kw_only=True)
class ScoredRecord(AnswerRecord):
    """A doc from somebody else's table, or from numbers that were kept without the rest.

    Attributes:
        answer_confidence: 0 to 1; None where it is undefined.
        answer_correct: 1 if the answer is right, else 0; None where nobody can tell.
    """

    kind: ClassVar[str] = "answer"

    answer_confidence: float | None = None
    answer_correct: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no probability and no outcome."""
        super().__post_init__()
        if self.answer_confidence is not None and not 0 <= self.answer_confidence <= 1:
            raise ValueError(f"confidence is {self.answer_confidence}, not 0 to 1")
        if self.answer_correct not in (0, 1, None):
            raise ValueError(f"correct is {self.answer_correct!r}, not 0 or 1")

    @property
    def confidence(self) -> float | None:
        """Confidence of the answer; None where it is undefined."""
        return self.answer_confidence

    @property
    def correct(self) -> int | None:
        """1 if the answer is right, else 0; None where nobody can tell."""
        return self.answer_correct
