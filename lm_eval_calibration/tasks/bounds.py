"""``full_ece`` where a server tells too few of the vocabulary's probabilities: what it is at least, and at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pooling import PooledValue
from lm_eval_calibration.metrics import full_ece_bounds
from lm_eval_calibration.records.record import Record


@dataclass(frozen=True)
class BoundAggregation:
    """The harness's aggregation of one bound: records in, value out; groups pool it over all their docs."""

    bound: str  # "low" or "high"
    n_bins: int

    def __call__(self, records: Sequence[Record]) -> PooledValue:
        """Return the bound over the records."""
        return PooledValue(self.value(records), self, records)

    def value(self, records: Sequence[Record]) -> float:
        """Return the bound as a plain float."""
        known = [(record, probs) for record in records for probs in record.large_probs or ()]
        if not known:
            return float("nan")
        log_probs = np.concatenate([record.log_probs for record in records if record.log_probs])
        bounds = full_ece_bounds(
            [probs for _, probs in known],
            np.exp(log_probs),
            [record.kept_from or 0.0 for record, _ in known],
            n_bins=self.n_bins,
        )
        return float(getattr(bounds, self.bound))

    def not_pooled(self, other: Any) -> float:
        """Say that tasks with other bins can't be pooled, and return nan."""
        warn_once(f"a group mixes tasks with n_bins {self.n_bins} and {other.n_bins}: its full_ece has no bounds")
        return float("nan")


BOUNDS = {"full_ece_at_least": "low", "full_ece_at_most": "high"}
"""The bounds by the name that the table shows."""
