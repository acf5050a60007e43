"""The confidence of the final answer: the product of the probabilities of the tokens that the answer was taken from.

After a chain of thought these are a few tokens of many. Beside it, by an option, the tail: the mean probability of the
last tokens before the answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import ANSWERED, GenerationRecord
from lm_eval_calibration.tasks.confidences.option import whole_number
from lm_eval_calibration.tasks.confidences.source import CATALOGS, ConfidenceSource, Table

CORE = ("brier_top_label", "ece", "ace", "auroc")
"""Metrics that tables have of one confidence of a written answer beside the default one."""


class WrittenSource(ConfidenceSource):
    """Another confidence of the answer that the model wrote; tables have its core metrics."""

    tables = ("generation",)
    has_trust_rows = True

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the metrics of one confidence a doc."""
        return {name: metric for name, metric in CATALOGS[table].items() if metric.kind == "top_label"}

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the core metrics among these."""
        return super().shown([name for name in names if name in CORE], options, table)


class AnswerSpan(WrittenSource):
    """The probability of the final answer's tokens, given everything before them."""

    name = "answer"
    report_name = "probability of the final answer's tokens"
    left_out_message = (
        "{n} of {total} answers stand nowhere in their texts as the filter gives them, or their tokens are not known "
        "({docs}); they are in no metric of the final answer's tokens"
    )

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs with the probabilities of their final answers."""
        return (record.with_confidence(record.generation.answer_probability) for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the answer is only a part of what was written: of a whole text ``ptot`` says the same."""
        return isinstance(record, GenerationRecord) and record.generation.is_part_of_the_text

    def left_out(self, record: Any) -> bool:
        """Whether there is an answer whose tokens are not known."""
        if not isinstance(record, GenerationRecord):
            return False
        return record.generation.outcome == ANSWERED and record.generation.answer_probability is None


class Tail(WrittenSource):
    """The mean probability of the last tokens before the final answer; the option says of how many."""

    name = "tail"
    option = whole_number("tail", 0, 100_000)
    report_name = "mean probability of the last tokens before the final answer"

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs with the mean probabilities of their tails."""
        return (record.with_confidence(record.generation.tail_probability) for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether there are tokens before the answer."""
        return isinstance(record, GenerationRecord) and record.generation.tail_probability is not None


ANSWER, TAIL = AnswerSpan(), Tail()
