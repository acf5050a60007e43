"""Confidence along the chain of thought: how much of the probability the most probable tokens have, on the way.

It is no probability, so it only ranks answers: its one metric is AUROC. Source: Fu et al. 2025, arXiv:2508.15260, whose
mean, tail and lowest group confidence these are; their windows slide, these follow one another.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.records import ANSWERED, ChainConfidence, GenerationRecord
from lm_eval_calibration.tasks.confidences.answer import WrittenSource
from lm_eval_calibration.tasks.confidences.option import whole_number
from lm_eval_calibration.tasks.confidences.source import Table


class Chain(WrittenSource):
    """One number of the windows of a thought.

    Args:
        name: of the source.
        number: makes the number, in nats, of a chain that has windows.
    """

    option = whole_number("chain", 0, 100_000)  # tokens of a window
    left_out_message = (
        "{n} of {total} answers have no numbers along their chain of thought, which has no tokens, or a token whose "
        "most probable alternatives are not all known ({docs}); they are in no metric of the chain"
    )

    def __init__(self, name: str, number: Callable[[ChainConfidence], float]) -> None:
        self.name, self._number = name, number

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the one metric of ranks."""
        return {name: metric for name, metric in super().metrics(table).items() if name == "auroc"}

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs ranked: a number x >= 0 of nats as 1 - exp(-x), which keeps their order."""
        for record in records:
            yield record.with_confidence(rank(self._number(record.generation.chain)) if self.is_in(record) else None)

    def is_in(self, record: Any) -> bool:
        """Whether the thought has windows."""
        return isinstance(record, GenerationRecord) and bool(record.generation.chain and record.generation.chain.means)

    def left_out(self, record: Any) -> bool:
        """Whether there is an answer, and no window."""
        return isinstance(record, GenerationRecord) and record.generation.outcome == ANSWERED and not self.is_in(record)


def rank(nats: float) -> float:
    """Return a number from 0 to 1 that is the larger the larger a number of nats is."""
    return -math.expm1(-nats)


CHAINS = (
    Chain("chain", lambda chain: sum(chain.sums) / chain.n_tokens),
    Chain("chain_lowest", lambda chain: min(chain.means)),
    Chain("chain_tail", lambda chain: chain.means[-1]),
)
