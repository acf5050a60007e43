"""Answers of "I don't know": rows that say how the model does where it may abstain, as published suites do.

No confidence: each row is a mean over docs of what :mod:`lm_eval_calibration.metrics.abstention` counts. A choice task
names the choice by the option ``abstain``; of a generated answer it is what the option ``refusal`` matches.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.metrics.abstention import SCALE
from lm_eval_calibration.records import REFUSED, ChoicesRecord
from lm_eval_calibration.tasks.confidences.option import pattern
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource, Table

INDEX, RATE, HALLUCINATION = "omniscience_index", "abstention_rate", "hallucination_rate"
RECALL, PRECISION = "abstention_recall", "abstention_precision"


class Abstention(ConfidenceSource):
    """Whether the model abstains, and rightly."""

    name = "abstention"
    option = pattern("abstain")
    means: ClassVar = {INDEX: True, RATE: False, HALLUCINATION: False, RECALL: True, PRECISION: True}

    def is_requested(self, options: Any) -> bool:
        """Whether the task says what an abstention is."""
        return bool(options["abstain"] or options.refusal)

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return none: it has no confidences."""
        return {}

    def requested_means(self, options: Any) -> Mapping[str, bool]:
        """Return its rows; those of docs where to abstain is right only where a choice says so."""
        names = [INDEX, RATE, HALLUCINATION, *((RECALL, PRECISION) if options["abstain"] else ())]
        return {name: self.means[name] for name in names}

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return nothing: it has no confidences."""
        return ()

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return what a doc adds to each row; to some of them only certain docs add anything."""
        if record.correct is None:
            return {}
        is_choice = isinstance(record, ChoicesRecord)
        abstained = record.answer == record.abstention if is_choice else record.generation.outcome == REFUSED
        wrong = float(not record.correct and not abstained)
        found = {INDEX: SCALE * (record.correct - wrong), RATE: float(abstained)}
        if not record.correct:
            found[HALLUCINATION] = wrong
        if is_choice and record.abstention is not None:
            is_right = record.gold == record.abstention
            found |= {RECALL: float(abstained)} if is_right else {}
            found |= {PRECISION: float(is_right)} if abstained else {}
        return found


ABSTENTION = Abstention()
