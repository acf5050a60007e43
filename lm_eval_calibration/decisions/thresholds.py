"""The lowest confidence from which answers are wrong at most as often as wanted, with a finite-sample guarantee.

Split fixed-sequence testing (Angelopoulos et al., Learn then Test, arXiv:2110.01052): a few docs order candidate
thresholds, other docs test them one after the other, each at the full level, until one fails. The error rate of the
answers does not fall steadily with the threshold, so the simpler methods for monotone risks don't apply.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from lm_eval_calibration.decisions.error_tests import answers_needed, cluster_p_value, error_p_value, fewest_answers
from lm_eval_calibration.metrics.validation import FloatArray, IntArray
from lm_eval_calibration.recalibration.operating_points import by_threshold

MOST_CANDIDATES = 100
"""Thresholds that are tested at most: with more of them, one fails by chance sooner."""

POWER = 0.8
"""Probability of finding a threshold with as many docs as :attr:`Threshold.docs_needed` says."""


@dataclass(frozen=True)
class Answers:
    """Answers by confidence.

    Attributes:
        confidence: [N] of the answers.
        wrong: [N] 1 where the answer is wrong, else 0.
        cluster: [N] 0..G - 1 cluster of each doc; None where docs are independent.
    """

    confidence: FloatArray
    wrong: FloatArray
    cluster: IntArray | None = None

    def __len__(self) -> int:
        return len(self.wrong)

    def take(self, which: IntArray) -> "Answers":
        """Return the answers of these docs."""
        cluster = None if self.cluster is None else np.unique(self.cluster[which], return_inverse=True)[1]
        return Answers(self.confidence[which], self.wrong[which], cluster)

    def with_others(self, others: "Answers") -> "Answers":
        """Return these answers and others, without their clusters."""
        return Answers(np.append(self.confidence, others.confidence), np.append(self.wrong, others.wrong))


class Guarantee(NamedTuple):
    """What is promised.

    Attributes:
        error_rate: highest P(wrong | answered), above 0 and below 1.
        alpha: highest probability, over samples of docs, that a threshold is returned that does not keep it.
        largest_cluster: most docs that a cluster can have.
    """

    error_rate: float
    alpha: float
    largest_cluster: int = 1


class Threshold(NamedTuple):
    """A threshold, and the docs it was tested on.

    Attributes:
        value: confidence from which to answer; None where no threshold is shown to hold.
        n_tested: docs that thresholds were tested on.
        n_answered: those of them that the threshold answers (without one: that the best candidate does).
        n_wrong: wrong answers among them.
        p_value: of the hypothesis that the error rate is higher than wanted.
        docs_needed: where there is no threshold, about how many docs to test on would show one with probability 0.8,
            if error rates are what they seem; None where answers seem to be wrong too often at every confidence.
    """

    value: float | None
    n_tested: int
    n_answered: int
    n_wrong: int
    p_value: float
    docs_needed: int | None = None


def choose_threshold(ordering: Answers, testing: Answers, guarantee: Guarantee) -> Threshold:
    """Choose the lowest threshold that is shown to hold: P(wrong | confidence >= threshold) <= error_rate.

    Args:
        ordering: docs that order the candidates.
        testing: other docs, drawn independently (or in independent clusters) from the same population.
        guarantee: what is promised, whatever the distribution.
    """
    error_rate, alpha, _ = guarantee
    found, tests = None, _Tests(testing, guarantee)
    for value in ordered_candidates(ordering, len(testing), error_rate):
        tested = tests.of(value)
        if tested.p_value > alpha:
            needed = _docs_needed(ordering.with_others(testing), error_rate, alpha)
            return found or tested._replace(value=None, docs_needed=needed)
        found = tested
    assert found is not None  # there is a candidate, 0
    return found


def ordered_candidates(ordering: Answers, n_testing: int, error_rate: float) -> list[float]:
    """Thresholds in the order of their tests: from the one that looks safest on the ordering docs, downward.

    The safest has the smallest p-value that is expected on the testing docs, at an error rate of (k + 1/2) / (n + 1).
    The last candidate is 0, which answers everything.
    """
    if not len(ordering):
        return [0.0]
    values, n_answered, n_wrong = by_threshold(ordering.confidence, ordering.wrong)
    expected_answers = np.maximum(1, np.round(n_answered * n_testing / len(ordering)))
    expected_wrong = np.floor((n_wrong + 0.5) / (n_answered + 1) * expected_answers)
    start = int(np.argmin(bdtr(expected_wrong, expected_answers.astype(np.int64), error_rate)))
    below = values[start:]
    kept = np.unique(np.linspace(0, len(below) - 1, min(len(below), MOST_CANDIDATES)).round().astype(np.int64))
    return list(dict.fromkeys([*below[kept].tolist(), 0.0]))


class _Tests:
    """Tests of thresholds on docs that are put in order once."""

    def __init__(self, testing: Answers, guarantee: Guarantee) -> None:
        order = np.argsort(-testing.confidence, kind="stable")
        self.testing, self.guarantee = testing, guarantee
        self.falling = -testing.confidence[order]
        self.n_wrong = np.append(0.0, np.cumsum(testing.wrong[order]))

    def of(self, threshold: float) -> Threshold:
        n_answered = int(np.searchsorted(self.falling, -threshold, side="right"))
        n_wrong = int(self.n_wrong[n_answered])
        error_rate, _, largest_cluster = self.guarantee
        if self.testing.cluster is None:
            p_value = error_p_value(n_wrong, n_answered, error_rate)
        else:
            answered = (self.testing.confidence >= threshold).astype(np.float64)
            sample = self.testing.wrong, answered, self.testing.cluster
            p_value = cluster_p_value(*sample, error_rate, largest_cluster)
        return Threshold(threshold, len(self.testing), n_answered, n_wrong, p_value)


def _docs_needed(answers: Answers, error_rate: float, alpha: float) -> int | None:
    """Docs to test on with which some threshold would be found; None where answers seem to be wrong too often.

    From the error rate (k + 1/2) / (n + 1) of each threshold and the share of docs that it answers. Where all of these
    are too high because there are fewer docs than could ever do, as many as that.
    """
    fewest = fewest_answers(error_rate, alpha)
    if not len(answers):
        return fewest
    _, n_answered, n_wrong = by_threshold(answers.confidence, answers.wrong)
    rates = (n_wrong + 0.5) / (n_answered + 1)
    best = int(np.argmin(rates))
    if rates[best] < error_rate:
        n_answers = answers_needed(float(rates[best]), error_rate, alpha, POWER)
        return math.ceil(n_answers * len(answers) / float(n_answered[best]))
    return fewest if len(answers) < fewest else None
