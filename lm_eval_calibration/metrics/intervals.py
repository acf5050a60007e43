"""Confidence intervals of every metric: ``<name>_interval(the arrays of <name>) -> (low, high)``.

Each holds its level for the population from which the docs were drawn (docs are independent; what belongs to
one doc, its choices or its tokens, stays together). For a binned error that is the population's error at the
same fixed bins, for equal-mass ranges at the population's quantiles. A plug-in error lies above that as a
rule, so it can be near the upper end of its interval, and an interval that reaches 0 says that these docs do
not refute calibration. How they are made: :mod:`~lm_eval_calibration.metrics.inversion` for binned errors,
:mod:`~lm_eval_calibration.metrics.estimates` for the others; how well they hold: ``tests/simulations``.

All take ``level``, the probability that the interval holds the population's value. All are reproducible:
those that simulate take ``seed``, of ``np.random.default_rng``. Nan for both ends, with an
UndefinedMetricWarning, where the metric is undefined or there is one doc only. Bad input raises ValueError
that names the row and the value.

Sources: bias of the plug-in error: Kumar et al. 2019, arXiv:1909.10155; that calibration and miscalibration have
different limits, and an interval of the l2 error that minds it: Sun et al. 2024, arXiv:2408.08998; tests of
calibration: Lee et al. 2023 (T-Cal), arXiv:2203.01850.
"""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics import estimates
from lm_eval_calibration.metrics.full_vocabulary import check_gap_sums, position_gap_sums
from lm_eval_calibration.metrics.inversion import Estimate
from lm_eval_calibration.metrics.validation import (
    Probs,
    check_choices,
    check_n_bins,
    check_probability,
    check_top_label,
)

Interval = tuple[float, float]


def acc_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``acc``: Wilson's, of a share. ``seed`` has no influence."""
    return _ends(estimates.acc_estimate(*check_top_label(confidence, correct), level=check_level(level)))


def ece_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the population's ``ece`` at the same equal-width bins, by inverted tests.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of bins.
        level: Probability that the interval holds the population's error.
        seed: Seed of ``np.random.default_rng``.

    Returns:
        The lower and the upper end, probabilities. 0 <= low <= ece <= high <= 1; low is 0 where these docs
        don't tell the model from a calibrated one.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    n_bins, level = check_n_bins(n_bins), check_level(level)
    return _ends(estimates.ece_estimate(conf, hit, n_bins=n_bins, level=level, seed=seed))


def ece_debiased_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of what ``ece_debiased`` estimates: that of :func:`ece_interval`."""
    conf, hit = check_top_label(confidence, correct)
    n_bins, level = check_n_bins(n_bins), check_level(level)
    return _ends(estimates.ece_estimate(conf, hit, n_bins=n_bins, level=level, seed=seed))


def ace_top_label_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``ace_top_label`` at the population's quantiles, by inverted tests."""
    conf, hit = check_top_label(confidence, correct)
    estimate = estimates.ace_top_label_estimate(
        conf, hit, n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def ace_one_class_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``ace_one_class`` at the population's quantiles, by inverted tests."""
    conf, hit = check_top_label(confidence, correct)
    estimate = estimates.ace_one_class_estimate(
        conf, hit, n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def rms_ce_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``rms_ce`` at the same equal-width bins, by inverted tests."""
    conf, hit = check_top_label(confidence, correct)
    n_bins, level = check_n_bins(n_bins), check_level(level)
    return _ends(estimates.rms_ce_estimate(conf, hit, n_bins=n_bins, level=level, seed=seed))


def ce_l2_debiased_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of what ``ce_l2_debiased`` estimates, the l2 error at these equal-mass bins, by inverted tests."""
    conf, hit = check_top_label(confidence, correct)
    estimate = estimates.ce_l2_debiased_estimate(
        conf, hit, n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def mce_interval(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``mce`` over the bins that hold a doc: exact intervals of the bins' accuracies, jointly.

    Clopper-Pearson with Bonferroni's correction, so it covers more often than ``level`` and is wide wherever
    some bin has few docs: that is how little they say about a maximum. ``seed`` has no influence.
    """
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.mce_estimate(conf, hit, n_bins=check_n_bins(n_bins), level=check_level(level)))


def smece_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the population's smoothed error at the bandwidth that ``smece`` chose, by inverted tests."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.smece_estimate(conf, hit, level=check_level(level), seed=seed))


def overconfidence_interval(
    confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the mean of c - h: Student's t. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.overconfidence_estimate(conf, hit, level=check_level(level)))


def brier_top_label_interval(
    confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the mean of (c - h)^2: Student's t. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.brier_top_label_estimate(conf, hit, level=check_level(level)))


def skill_score_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``skill_score``: delta method and Student's t. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.skill_score_estimate(conf, hit, level=check_level(level)))


def auroc_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``auroc``: DeLong on the logit scale.

    Where confidence separates the docs completely, or a class has one doc, Newcombe's interval (2006,
    method 5). ``seed`` has no influence.
    """
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.auroc_estimate(conf, hit, level=check_level(level)))


def aurc_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``aurc``: influence function, logit scale. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.aurc_estimate(conf, hit, level=check_level(level)))


def augrc_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``augrc``: influence function, logit scale. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.augrc_estimate(conf, hit, level=check_level(level)))


def auprc_interval(confidence: ArrayLike, correct: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``auprc``: influence function, logit scale. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    return _ends(estimates.auprc_estimate(conf, hit, level=check_level(level)))


def confident_error_rate_interval(
    confidence: ArrayLike, correct: ArrayLike, *, threshold: float = 0.9, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``confident_error_rate``: Wilson's, of a share. ``seed`` has no influence."""
    conf, hit = check_top_label(confidence, correct)
    threshold = check_probability("threshold", threshold)
    return _ends(estimates.confident_error_rate_estimate(conf, hit, threshold=threshold, level=check_level(level)))


def ace_interval(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``ace`` at the population's quantiles of each class, by inverted tests."""
    estimate = estimates.ace_estimate(
        check_choices(probs, labels), n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def sce_interval(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``sce`` at the same equal-width bins, by inverted tests."""
    estimate = estimates.sce_estimate(
        check_choices(probs, labels), n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def full_ece_choices_interval(
    probs: Probs, labels: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``full_ece_choices`` at the same equal-width bins, by inverted tests."""
    estimate = estimates.full_ece_choices_estimate(
        check_choices(probs, labels), n_bins=check_n_bins(n_bins), level=check_level(level), seed=seed
    )
    return _ends(estimate)


def brier_score_interval(probs: Probs, labels: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``brier_score``: Student's t. ``seed`` has no influence."""
    return _ends(estimates.brier_score_estimate(check_choices(probs, labels), level=check_level(level)))


def nll_interval(probs: Probs, labels: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of ``nll``: Student's t; nan where some gold choice has probability 0. ``seed`` has no influence."""
    return _ends(estimates.nll_estimate(check_choices(probs, labels), level=check_level(level)))


def full_ece_interval(
    probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``full_ece`` at the same equal-width bins, by inverted tests; every position is a doc.

    Positions of one text depend on each other: with several positions a doc, sum the ``position_gap_sums`` of
    each doc and take :func:`full_ece_from_gap_sums_interval`.
    """
    gaps = position_gap_sums(probs, targets, n_bins=n_bins)
    return full_ece_from_gap_sums_interval(gaps, np.ones(len(gaps), dtype=np.int64), level=level, seed=seed)


def full_ece_from_gap_sums_interval(
    gap_sums: ArrayLike, n_positions: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``full_ece`` from the gap sums of docs, which are independent; their positions may not be."""
    gaps, n = check_gap_sums(gap_sums, n_positions)
    return _ends(estimates.full_ece_estimate(gaps, n, level=check_level(level), seed=seed))


def check_level(level: float) -> float:
    """The level of an interval, between 0 and 1."""
    level = check_probability("level", level)
    if level in (0, 1):
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1")
    return level


def _ends(estimate: Estimate) -> Interval:
    return estimate.low, estimate.high
