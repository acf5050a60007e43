"""The risk-coverage curve: how often a model is wrong when it answers only what it is surest of."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics import risk_coverage_curve

POINTS = 200


class RiskCoveragePoint(NamedTuple):
    """Answering the most confident docs.

    Attributes:
        coverage: share of docs that is answered.
        risk: share of wrong answers among them.
        threshold: confidence of the last of them.
    """

    coverage: float
    risk: float
    threshold: float


def prepare_risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[RiskCoveragePoint, ...]:
    """Return the curve, from the surest doc to all of them, at most 200 points of it.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.

    Raises:
        ValueError: bad input; the message names the row and the value.
    """
    coverage, risk, threshold = risk_coverage_curve(confidence, correct)
    chosen = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
    rows = zip(coverage[chosen].tolist(), risk[chosen].tolist(), threshold[chosen].tolist(), strict=True)
    return tuple(RiskCoveragePoint(*row) for row in rows)
