"""The confidence of the final answer: the product of the probabilities of the tokens that the answer was taken from.

After a chain of thought these are a few tokens of many. Where every answer is one of its doc's options, and these were
scored in its place, the metrics are those of the probabilities of all options, as of a doc whose choices are scored.
Beside it, by an option, the tail: the mean probability of the last tokens before the answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lm_eval_calibration.backends import can_score_texts
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import ANSWERED, GenerationRecord
from lm_eval_calibration.tasks.confidences.answer_options import OptionsAtAnswer
from lm_eval_calibration.tasks.confidences.option import Option, whole_number
from lm_eval_calibration.tasks.confidences.source import CATALOGS, ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric, trust_rows
from lm_eval_calibration.tasks.doc_options import problem_of_wanted

CORE = ("brier_top_label", "ece", "ace", "auroc")
"""Metrics that tables have of one confidence of a written answer beside the default one."""


OVER_OPTIONS = ("brier_score", "ace")
"""Metrics of the final answer that need the probabilities of all options."""


def has_options(records: Sequence[Any]) -> bool:
    """Whether every answer is one of its doc's options, which were scored, and so is every right answer."""
    of_answers = [r.options for r in records if isinstance(r, GenerationRecord) and r.generation.outcome == ANSWERED]
    return bool(of_answers) and all(options is not None and options.gold is not None for options in of_answers)


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
    option = Option("answer_options", None, problem_of_wanted)
    report_name = "probability of the final answer's tokens"
    left_out_message = (
        "{n} of {total} answers stand nowhere in their texts as the filter gives them, or their tokens are not known "
        "({docs}); they are in no metric of the final answer's tokens"
    )

    def is_requested(self, options: Any) -> bool:
        """Yes: the option says whether a doc's options are scored."""
        return True

    def rows(self, table: Table) -> dict[str, TableMetric]:
        """Return its rows; those of ``OVER_OPTIONS`` are of all options where these were scored."""
        metrics = {f"{name}{self.suffix}": CATALOGS["choices"][name] for name in OVER_OPTIONS}
        over = {n: TableMetric(replace(metric, name=n), self, self.over_options) for n, metric in metrics.items()}
        over |= trust_rows(over)
        plain = super().rows(table)
        return {name: row._replace(instead=over.get(name)) for name, row in plain.items()} | {
            name: row for name, row in over.items() if name not in plain
        }

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the core metrics among these, and the Brier score of all options where these are wanted."""
        shown = super().shown(names, options, table)
        if options[self.option.name] is None:
            return shown
        return [*ConfidenceSource.shown(self, OVER_OPTIONS[:1], options, table), *shown]

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs with the probabilities of their final answers, or over their options if all have them."""
        if not has_options(records):
            return (record.with_confidence(record.generation.answer_probability) for record in records)
        return (r.over_options() if r.generation.outcome == ANSWERED else r.with_confidence(None) for r in records)

    def over_options(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the answered docs over their options; none where some lack them."""
        return (r.over_options() for r in records if r.generation.outcome == ANSWERED) if has_options(records) else ()

    def is_in(self, record: Any) -> bool:
        """Whether the answer is a part of what was written (of a whole text ``ptot`` says the same), or has options."""
        if not isinstance(record, GenerationRecord):
            return False
        return record.generation.is_part_of_the_text or record.options is not None

    def start(self, task: Any, lm: Any, chat_template: Any) -> OptionsAtAnswer | None:
        """Return what scores the options, where they are wanted and the backend can."""
        if task.options[self.option.name] is None:
            return None
        if lm is not None and not can_score_texts(lm):
            logger.warning(
                f"{task.task_name}: the backend scores no text that it is given: the probabilities of the options in "
                "the place of the answer are left out"
            )
            return None
        return OptionsAtAnswer(self.name, task)

    def left_out(self, record: Any) -> bool:
        """Whether there is an answer whose tokens are not known."""
        if not isinstance(record, GenerationRecord):
            return False
        is_known = record.generation.answer_probability is not None or record.options is not None
        return record.generation.outcome == ANSWERED and not is_known


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
