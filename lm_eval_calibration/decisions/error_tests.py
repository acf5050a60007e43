"""Is the error rate among the answers above what is wanted? One p-value of docs, one of clusters of docs."""

import math

import numpy as np
from scipy.special import bdtr, bdtrc, ndtri

from lm_eval_calibration.metrics.validation import FloatArray, IntArray

BETS = np.concatenate([np.geomspace(1e-3, 0.5, 50), 1 - np.geomspace(0.5, 1e-3, 50)[1:]])
"""Shares of the wealth that are bet at most, from careful to nearly all of it."""


def error_p_value(n_wrong: int, n_answered: int, error_rate: float, *, is_lower: bool = True) -> float:
    """P(at most as many wrong answers) if answers are wrong at the error rate: the exact binomial test.

    Small where the population's error rate is below ``error_rate``: p <= a is P(wrong | answered) at most
    Clopper and Pearson's one-sided upper bound of level 1 - a. 1 where nothing is answered.

    Args:
        n_wrong: wrong answers, among answers to docs that were drawn independently.
        n_answered: answers.
        error_rate: 0 to 1; the null hypothesis is a rate at least as high.
        is_lower: whether the alternative is a lower error rate; else a higher one, and P(at least as many).
    """
    if not n_answered:
        return 1.0
    if is_lower:
        return float(bdtr(n_wrong, n_answered, error_rate))
    return float(bdtrc(n_wrong - 1, n_answered, error_rate)) if n_wrong else 1.0


def cluster_p_value(
    wrong: FloatArray,
    answered: FloatArray,
    cluster: IntArray,
    error_rate: float,
    largest_cluster: int,
    *,
    is_lower: bool = True,
) -> float:
    """The same of clusters that were drawn independently, whatever the dependence within them.

    With X_g = sum over the cluster's docs of answered (wrong - error_rate), the null hypothesis is E X >= 0. A
    gambler who bets against it wins 1 - b X_g / ((1 - error_rate) largest_cluster) a cluster, of mean at most 1, so
    wealth above 1 / p has probability p or less (Markov). The wealth is the mean over ``BETS``.

    Args:
        wrong: [N] 1 where the answer is wrong.
        answered: [N] 1 where the doc is answered.
        cluster: [N] 0..G - 1.
        error_rate: as above.
        largest_cluster: most docs that a cluster can have.
        is_lower: whether the alternative is a lower error rate; else a higher one (null hypothesis: at most this one).

    Source: Waudby-Smith & Ramdas 2024, arXiv:2010.09686 (betting); a mixture of constant bets.
    """
    lost = np.bincount(cluster, answered * (wrong - error_rate)) * (1 if is_lower else -1)
    most = (1 - error_rate if is_lower else error_rate) * largest_cluster
    log_wealth = np.log1p(-np.outer(BETS, lost / most)).sum(axis=1)
    return min(1.0, math.exp(min(0.0, math.log(len(BETS)) - float(np.logaddexp.reduce(log_wealth)))))


def fewest_answers(error_rate: float, alpha: float) -> int:
    """Answers without a single error that show an error rate below ``error_rate`` at level ``alpha``."""
    return math.ceil(math.log(alpha) / math.log1p(-error_rate) - 1e-9)


def answers_needed(rate: float, error_rate: float, alpha: float, power: float) -> int:
    """Answers that show, with probability ``power``, that a model that is wrong at ``rate`` is below ``error_rate``.

    n = ((z_alpha sqrt(e (1 - e)) + z_power sqrt(r (1 - r))) / (e - r))^2, e the error rate and r the rate below it,
    but not fewer than :func:`fewest_answers`.
    """
    spread = ndtri(1 - alpha) * math.sqrt(error_rate * (1 - error_rate)) + ndtri(power) * math.sqrt(rate * (1 - rate))
    n_answers = math.ceil(float(spread / (error_rate - rate)) ** 2)
    return max(fewest_answers(error_rate, alpha), n_answers)
