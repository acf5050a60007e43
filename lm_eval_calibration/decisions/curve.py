"""What other error rates would give: the share of questions answered with a guarantee, and what was possible."""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.decisions.parts import Parts
from lm_eval_calibration.decisions.thresholds import Answers, Guarantee, choose_threshold
from lm_eval_calibration.decisions.wanted import Wanted
from lm_eval_calibration.recalibration.operating_points import by_threshold

POINTS = 40


class GuaranteeCurve(NamedTuple):
    """By the error rate that is wanted, the share of the other docs that is answered.

    Attributes:
        error_rate: rising.
        guaranteed: share that the guaranteed threshold of this error rate answers; 0 where there is none. Each point
            is guaranteed by itself, not all of them together.
        possible: largest share with at most so many wrong answers, known afterwards.
    """

    error_rate: tuple[float, ...]
    guaranteed: tuple[float, ...]
    possible: tuple[float, ...]


def guarantee_curve(answers: Answers, parts: Parts, wanted: Wanted, *, largest_cluster: int) -> GuaranteeCurve:
    """Return the curve from 0 to the error rate of answering everything, or twice the one that is wanted."""
    ordering, testing, others = (answers.take(rows) for rows in parts)
    highest = min(0.99, max(1.1 * float(answers.wrong.mean()), 2 * wanted.error_rate))
    rates = np.unique(np.append(np.linspace(0, highest, POINTS + 1)[1:], wanted.error_rate))
    guarantees = [Guarantee(float(rate), 1 - wanted.confidence_level, largest_cluster) for rate in rates]
    found = [choose_threshold(ordering, testing, guarantee).value for guarantee in guarantees]
    guaranteed = [0.0 if value is None else float(np.mean(others.confidence >= value)) for value in found]
    _, n_answered, n_wrong = by_threshold(others.confidence, others.wrong)
    possible = [float(max(n_answered[n_wrong <= rate * n_answered], default=0) / len(others)) for rate in rates]
    return GuaranteeCurve(tuple(rates.tolist()), tuple(guaranteed), tuple(possible))
