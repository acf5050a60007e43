"""How many tokens of the reference answers are the most probable ones."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import say_once
from lm_eval_calibration.harness.pooling import PooledStderr, PooledValue
from lm_eval_calibration.records.record import Record, ordered

TOKEN_ACCURACY = "token_accuracy"


def token_hits(record: Record) -> tuple[int, int]:
    """Return how many of the reference's tokens are the most probable ones at their positions, and how many there are.

    A token is told by its probability; where no entry reaches the least probability that is recorded, it counts as a
    miss.
    """
    probs = np.exp(record.log_probs or ())
    large = record.large_probs or ()
    hits = [bool(at) and p >= max(at) for p, at in zip(probs.tolist(), large, strict=True)]
    return sum(hits), len(hits)


@dataclass(frozen=True)
class TokenAccuracy:
    """Share of all reference tokens that are the most probable ones; groups pool it over all their docs."""

    name: str = TOKEN_ACCURACY

    def __call__(self, records: Sequence[Record]) -> PooledValue:
        """Return the share over the records, ``nan`` where there is no token."""
        return PooledValue(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the share as a plain float."""
        return self._compute(metrics.token_accuracy, records)

    def _compute(self, function: Callable[..., float], records: Sequence[Record]) -> float:
        counts = [token_hits(record) for record in ordered(records) if record.log_probs]
        if not counts:
            say_once(f"{records[0].task}: {self.name} is undefined: no doc has a token of a reference answer")
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one doc alone has no error
            return float(function(*np.transpose(counts)))

    def not_pooled(self, other: Any) -> float:
        """Say that the tasks can't be pooled, and return nan."""
        say_once(f"a group mixes {self.name} of two kinds: it is undefined")
        return float("nan")


@dataclass(frozen=True)
class TokenAccuracyStderr(TokenAccuracy):
    """The same for its standard error, a bootstrap over docs; "N/A" for a single doc, as the harness has it."""

    def __call__(self, records: Sequence[Record]) -> Any:
        """Return the standard error over the records."""
        return "N/A" if len(records) < 2 else PooledStderr(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the standard error as a plain float."""
        return self._compute(metrics.token_accuracy_stderr, records)
