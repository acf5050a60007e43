"""``full_ece`` where a server returns too few of the vocabulary's probabilities: what it is at least, and at most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.harness.pools import NO_STDERR, DocPool, Statistic
from lm_eval_calibration.metrics import full_ece_bounds
from lm_eval_calibration.records import AnswerRecord


@dataclass(frozen=True)
class Bound(Statistic):
    """One bound of ``full_ece``; it has no standard error."""

    end: str  # "low" or "high"
    n_bins: int

    def value(self, pool: DocPool) -> float:
        """Return the bound over the records."""
        bounds = pool.once(("full_ece_bounds", self.n_bins), lambda: _bounds(pool, self.n_bins))
        return float("nan") if bounds is None else float(getattr(bounds, self.end))

    def stderr(self, pool: DocPool) -> str:
        """Return that there is none."""
        return NO_STDERR


def _bounds(pool: DocPool, n_bins: int) -> Any:
    answers = [record for record in pool.records if isinstance(record, AnswerRecord)]
    known = [(record, probs) for record in answers for probs in record.large_probs or ()]
    if not known:
        return None
    log_probs = np.concatenate([record.log_probs for record in answers if record.log_probs])
    kept_from = [record.kept_from or 0.0 for record, _ in known]
    return full_ece_bounds([probs for _, probs in known], np.exp(log_probs), kept_from, n_bins=n_bins)


BOUNDS = {"full_ece_at_least": "low", "full_ece_at_most": "high"}
"""The bounds by the name that the table shows."""
