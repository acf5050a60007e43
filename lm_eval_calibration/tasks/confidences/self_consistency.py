"""Self-consistency: the share of several sampled answers that agree is the confidence of the most frequent one.

Samples without an answer have no vote. Beside it, the entropy of the answers' distribution, which ranks docs by how
much their samples disagree. Source: Wang et al. 2023, arXiv:2203.11171.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.tasks.confidences.answer import WrittenSource
from lm_eval_calibration.tasks.confidences.option import whole_number
from lm_eval_calibration.tasks.confidences.source import Table

SAMPLED_ACC = "acc_self_consistency"
"""Share of docs whose most frequent answer is right."""


WITHOUT_ANSWER = "samples_without_answer"
"""Mean share of a doc's samples that hold no answer."""


class SelfConsistency(WrittenSource):
    """Agreement of samples; the harness draws as many as ``repeats``."""

    name = "self_consistency"
    option = whole_number("repeats", 0, 10_000)
    means: ClassVar = {SAMPLED_ACC: True, WITHOUT_ANSWER: False}
    has_trust_rows = False

    def is_requested(self, options: Any) -> bool:
        """Whether there is more than one sample to a doc."""
        return bool(options["repeats"] > 1)

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs as their samples answer them."""
        return (record.self_consistent() for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the doc was answered several times."""
        return bool(record.generation.samples)

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return whether the most frequent answer is right, and the share of samples without an answer."""
        generation = record.generation
        if generation.majority is None:
            return {}
        correct = generation.majority[1]
        return {
            SAMPLED_ACC: float("nan") if correct is None else float(correct),
            WITHOUT_ANSWER: 1 - generation.votes.total() / len(generation.samples),
        }


class Entropy(SelfConsistency):
    """Minus the entropy of the samples' answers, which only ranks docs: its one metric is AUROC."""

    name = "entropy"
    means: ClassVar = {}

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the one metric of ranks."""
        return {name: metric for name, metric in super().metrics(table).items() if name == "auroc"}

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs as their samples answer them, ranked by exp(-entropy), which is from 0 to 1."""
        for record, answer in zip(records, super().view(records), strict=True):
            entropy = record.generation.answer_entropy
            yield answer._replace(confidence=None if entropy is None else math.exp(-entropy))


SELF_CONSISTENCY, ENTROPY = SelfConsistency(), Entropy()
