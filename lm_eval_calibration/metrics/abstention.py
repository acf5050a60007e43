"""What published suites make of "I don't know": each function takes arrays of N docs, 0 or 1, and returns a float.

An answer is right, an abstention ("I don't know", a refusal), or wrong; a right one may be an abstention, where the
question cannot be answered. nan, with an UndefinedMetricWarning, where nothing is counted.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.validation import FloatArray, check_top_label, undefined

SCALE = 100.0
"""Of the index, as it is published."""


def omniscience_index(correct: ArrayLike, abstained: ArrayLike) -> float:
    """100 (right - wrong) / N: -100 to 100 (best); 0 for as many wrong answers as right ones, or abstaining always.

    correct: [N] 0 or 1. abstained: [N] 0 or 1. Without the partly right answers that a judge finds in the suite, which
    count for nothing but stand in N. Source: AA-Omniscience, arXiv:2511.13029.
    """
    hit, silent = _outcomes(correct, abstained)
    return float(SCALE * np.mean(hit - _wrong(hit, silent)))


def hallucination_rate(correct: ArrayLike, abstained: ArrayLike) -> float:
    """Wrong answers as a share of the docs that are not answered rightly, wrong or abstained from: 0 (best) to 1.

    correct: [N] 0 or 1. abstained: [N] 0 or 1. Source: AA-Omniscience, arXiv:2511.13029.
    """
    hit, silent = _outcomes(correct, abstained)
    if hit.all():
        return undefined("hallucination_rate is undefined: every answer is right")
    return float(np.mean(_wrong(hit, silent)[hit == 0]))


def abstention_recall(abstained: ArrayLike, should_abstain: ArrayLike) -> float:
    """Share of abstentions among the docs where to abstain is right: 0 to 1 (best).

    abstained: [N] 0 or 1. should_abstain: [N] 0 or 1. Source: AbstentionBench, arXiv:2506.09038.
    """
    silent, right = _outcomes(abstained, should_abstain)
    if not right.any():
        return undefined("abstention_recall is undefined: no doc is to be abstained from")
    return float(silent[right == 1].mean())


def abstention_precision(abstained: ArrayLike, should_abstain: ArrayLike) -> float:
    """Share of the abstentions that are right: 0 to 1 (best).

    abstained: [N] 0 or 1. should_abstain: [N] 0 or 1. Source: AbstentionBench, arXiv:2506.09038.
    """
    silent, right = _outcomes(abstained, should_abstain)
    if not silent.any():
        return undefined("abstention_precision is undefined: no doc was abstained from")
    return float(right[silent == 1].mean())


def _outcomes(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check two arrays of zeros and ones of one length."""
    one, other = check_top_label(first, second)
    return check_top_label(other, one)[::-1]


def _wrong(hit: FloatArray, silent: FloatArray) -> FloatArray:
    """[N] 1 where the doc is neither answered rightly nor abstained from."""
    return np.asarray((hit == 0) & (silent == 0), dtype=np.float64)
