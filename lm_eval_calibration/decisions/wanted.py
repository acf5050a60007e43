"""What is wanted of a decision."""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.decisions.costs import Costs
from lm_eval_calibration.metrics.validation import check_probability


class Wanted(NamedTuple):
    """What is wanted of a decision.

    Attributes:
        error_rate: highest share of wrong answers among those given, above 0 and below 1.
        confidence_level: probability, over samples of calibration docs, that the error rate is no higher.
        costs: of a wrong answer and of an abstention; None where they don't matter.
    """

    error_rate: float = 0.05
    confidence_level: float = 0.95
    costs: Costs | None = None

    def check(self) -> "Wanted":
        """Return it; raise ValueError for what is no rate, level or cost."""
        for name in ("error_rate", "confidence_level"):
            value = check_probability(name, getattr(self, name))
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value:g}; it must be above 0 and below 1")
        if self.costs is not None and not all(np.isfinite(cost) and cost > 0 for cost in self.costs):
            raise ValueError(f"costs are {self.costs.wrong:g} and {self.costs.abstain:g}; both must be above 0")
        return self
