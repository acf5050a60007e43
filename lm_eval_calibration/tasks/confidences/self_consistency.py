"""Self-consistency: the share of several sampled answers that agree is the confidence of the most frequent one.

Source: Wang et al. 2023, arXiv:2203.11171.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.tasks.confidences.option import whole_number
from lm_eval_calibration.tasks.confidences.source import CATALOGS, ConfidenceSource, Table

CORE = ("brier_top_label", "ece", "ace", "auroc")
"""Metrics that several samples add."""

SAMPLED_ACC = "acc_self_consistency"
"""Share of docs whose most frequent answer is right."""


class SelfConsistency(ConfidenceSource):
    """Agreement of samples; the harness draws as many as ``repeats``."""

    name = "self_consistency"
    tables = ("generation",)
    option = whole_number("repeats", 0, 10_000)
    means: ClassVar = {SAMPLED_ACC: True}

    def is_requested(self, options: Any) -> bool:
        """Whether there is more than one sample to a doc."""
        return bool(options["repeats"] > 1)

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the metrics of one confidence a doc."""
        return {name: metric for name, metric in CATALOGS[table].items() if metric.kind == "top_label"}

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the core metrics among these."""
        return super().shown([name for name in names if name in CORE], options, table)

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs as their samples answer them."""
        return (record.self_consistent() for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the doc was answered several times."""
        return bool(record.generation.samples)

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return whether the most frequent answer is right."""
        majority = record.generation.majority
        return {} if majority is None else {SAMPLED_ACC: float("nan") if majority[1] is None else float(majority[1])}


SELF_CONSISTENCY = SelfConsistency()
