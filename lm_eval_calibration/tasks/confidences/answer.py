"""The confidence of the final answer: the product of the probabilities of the tokens that the answer was taken from.

After a chain of thought these are a few tokens of many. Where at least half of the answers are one of their doc's
options, whose probabilities in the answer's place are known, the metrics are those of the probabilities of all options,
as of a doc whose choices are scored, and of these docs.
Beside it, by an option, the tail: the mean probability of the last tokens before the answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lm_eval_calibration.backends import can_score_texts
from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import ANSWERED, GenerationRecord
from lm_eval_calibration.tasks.confidences.answer_options import (
    ListedOptions,
    OptionsAtAnswer,
    ScoredOptions,
    has_options,
    prevail,
)
from lm_eval_calibration.tasks.confidences.option import Option, whole_number
from lm_eval_calibration.tasks.confidences.source import CATALOGS, ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric, trust_rows
from lm_eval_calibration.tasks.doc_options import problem_of_wanted

CORE = ("brier_top_label", "ece", "ace", "auroc")
"""Metrics that tables have of one confidence of a written answer beside the default one."""


OVER_OPTIONS = ("brier_score", "ace")
"""Metrics of the final answer that need the probabilities of all options."""


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
    without_options_message = (
        "{n} of {total} answers have no probabilities of their doc's options, being none of these, or the right answer "
        "is none ({docs}); they are in no metric of the final answer, which are over the options"
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
        """Return the docs with the probabilities of their final answers, or over their options if most have them."""
        if not _are_over_options(records):
            return (record.with_confidence(record.generation.answer_probability) for record in records)
        return (record.over_options() if has_options(record) else record.with_confidence(None) for record in records)

    def over_options(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs over their options; none where most answers lack them."""
        return (r.over_options() for r in records if has_options(r)) if _are_over_options(records) else ()

    def is_in(self, record: Any) -> bool:
        """Whether the answer is a part of what was written (of a whole text ``ptot`` says the same), or has options."""
        if not isinstance(record, GenerationRecord):
            return False
        return record.generation.is_part_of_the_text or record.options is not None

    def start(self, task: Any, lm: Any, chat_template: Any) -> OptionsAtAnswer | None:
        """Return what finds the options' probabilities, where they are wanted."""
        if task.options[self.option.name] is None:
            return None
        return ScoredOptions(self.name, task) if lm is None or can_score_texts(lm) else ListedOptions(self.name, task)

    def left_out_of(self, records: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the answers without options where metrics are over these, else those whose tokens are not known."""
        answered = [r for r in records if isinstance(r, GenerationRecord) and r.generation.outcome == ANSWERED]
        if _are_over_options(records):
            return {self.without_options_message: [record for record in answered if not has_options(record)]}
        if not any(map(self.is_in, records)):
            return {}
        return {self.left_out_message: [r for r in answered if r.generation.answer_probability is None]}


def _are_over_options(records: Sequence[Any]) -> bool:
    answered = [r for r in records if isinstance(r, GenerationRecord) and r.generation.outcome == ANSWERED]
    return prevail(sum(map(has_options, answered)), len(answered))


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
