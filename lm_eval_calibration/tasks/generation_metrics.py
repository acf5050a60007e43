"""How many tokens of the reference answers are the most probable ones."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pools import DocPool, Statistic
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
class TokenAccuracy(Statistic):
    """Share of all reference tokens that are the most probable ones."""

    def value(self, pool: DocPool) -> float:
        """Return the share over the records, ``nan`` where there is no token."""
        return self._compute(metrics.token_accuracy, pool)

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error, a bootstrap over docs."""
        return self._compute(metrics.token_accuracy_stderr, pool)

    def _compute(self, function: Callable[..., float], pool: DocPool) -> float:
        counts = [token_hits(record) for record in ordered(pool.records) if record.log_probs]
        if not counts:
            warn_once(f"{pool.tasks}: {TOKEN_ACCURACY} is undefined: no doc has a token of a reference answer")
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one doc alone has no error
            return float(function(*np.transpose(counts)))
