"""Full-vocabulary calibration (Full-ECE): every (position, vocabulary entry) pair is one forecast.

It is computed from the gap sums of :mod:`~lm_eval_calibration.metrics.token_sums`, without most of the vocabulary.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.registry import CATALOG, metric
from lm_eval_calibration.metrics.token_sums import check_gap_sums, position_gap_sums
from lm_eval_calibration.metrics.uncertainty import nulls
from lm_eval_calibration.metrics.uncertainty.clusters import cluster_sums
from lm_eval_calibration.metrics.uncertainty.gap_vectors import ratio_gaps, too_few_texts
from lm_eval_calibration.metrics.uncertainty.inversion import inverted_tests
from lm_eval_calibration.metrics.uncertainty.resampling import ratio_stderr
from lm_eval_calibration.metrics.uncertainty.shares import Interval
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, undefined

FEW_DOCS = 30
"""Docs of several positions below which their gap sums don't tell the noise of their total."""


def _null(gaps: FloatArray, n_positions: IntArray, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    """Full-ECE under calibration, from gap sums.

    The gap sums of a single position tell its bins' masses: the only entry above 0 is 1 less the mass of the
    bin of its reference token, the others are the masses of theirs, negative. So where every doc has one
    position, bins are drawn from the masses. Gap sums of several positions don't; but under calibration the
    docs' gap sums have mean 0 and don't hang together, so that their total is normal with covariance
    sum_i g_i g_i^T: the noise is then that of these docs and not of their forecasts alone. Nan for fewer than
    30 docs of several positions.
    """
    if cluster is not None:
        drawn = nulls.signed_sums(cluster_sums(gaps, cluster), seed)
        return np.asarray(np.abs(drawn).sum(axis=1) / n_positions.sum())
    if np.any(n_positions > 1):
        if len(gaps) < FEW_DOCS:
            undefined(f"the null of full_ece needs {FEW_DOCS} docs where docs have several positions")
            return np.empty(0)
        return np.asarray(np.abs(nulls.normal_draws(gaps.T @ gaps, seed)).sum(axis=1) / n_positions.sum())
    masses = _bin_masses(gaps)
    position, cell = np.nonzero(masses)
    forecasts = nulls.Forecasts(masses[position, cell], position, len(gaps))
    return nulls.drawn_errors(forecasts, nulls.bins_membership(cell, gaps.shape[1], 1 / len(gaps)), seed)


def _most_bins(gaps: FloatArray, n_positions: IntArray) -> int:
    """Bins of which one is the reference token's; 0, which is unknown, for docs of several positions."""
    return gaps.shape[1] if np.all(n_positions == 1) else 0


def _bin_masses(gaps: FloatArray) -> FloatArray:
    """Mass of each bin of single positions, [N, n_bins]; 0 throughout where one bin holds all: it has no noise."""
    masses, position = np.maximum(-gaps, 0), np.arange(len(gaps))
    hit = gaps.argmax(axis=1)
    masses[position, hit] = 1 - gaps[position, hit]
    masses[gaps.max(axis=1) < nulls.ROUNDING] = 0
    masses[masses < nulls.ROUNDING] = 0
    return masses


@metric(
    "full_vocabulary",
    name="full_ece",
    higher_is_better=False,
    tables=("choices", "generation", "corpus"),
    core=("choices", "generation", "corpus"),
    order=4,
    stderr=ratio_stderr,
    estimate=inverted_tests(ratio_gaps, largest=2.0, null=_null, refuse=too_few_texts, per_doc=_most_bins),
    null=_null,
)
def full_ece_from_gap_sums(gap_sums: ArrayLike, n_positions: ArrayLike) -> float:
    """:func:`full_ece` from gap sums: sum_m |sum_i gap_im| / sum_i n_i.

    gap_sums: [N, n_bins] gap sums of each doc, summed over its positions. n_positions: [N] number of positions of
    each doc.
    Returns expected tokens per position, 0 (best) to 2. Raises ValueError for bad input, naming the row and the value.
    """
    gaps, n = check_gap_sums(gap_sums, n_positions)
    return float(np.abs(gaps.sum(axis=0)).sum() / n.sum())


def full_ece(probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10) -> float:
    """Full-vocabulary expected calibration error: (1 / N) sum_m |sum_{(i, k) in m} (1[y_i = k] - p_ik)|.

    Every vocabulary entry k at every position i is one forecast; all are pooled in equal-width bins m.
    Depends on the tokenizer: models with different tokenizers are not comparable.

    probs: [n_tokens, vocab_size] probabilities, rows sum to 1. Padded vocabulary rows belong to it. targets:
    [n_tokens] reference token ids. n_bins: number of bins; empty ones add 0.
    Returns expected tokens per position, 0 (best) to 2. Raises ValueError for bad input, naming the row and the value.
    Source: Liu et al. 2024, arXiv:2406.11345, with N = positions.
    """
    return full_ece_from_gap_sums(*_docs_of_one_position(probs, targets, n_bins))


def full_ece_stderr(
    probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10, draws: int = 1000, seed: int = 0
) -> float:
    """Standard error of :func:`full_ece`: bootstrap over positions; nan for one position.

    Positions of one text depend on each other: with several positions a doc, sum the
    :func:`position_gap_sums` of each doc and take :func:`full_ece_from_gap_sums_stderr`.
    """
    return CATALOG["full_ece"].stderr(*_docs_of_one_position(probs, targets, n_bins), draws=draws, seed=seed)


def full_ece_interval(
    probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of :func:`full_ece` at the same equal-width bins, by inverted tests; every position is a doc."""
    return CATALOG["full_ece"].interval(*_docs_of_one_position(probs, targets, n_bins), level=level, seed=seed)


def full_ece_null(probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> nulls.Null:
    """Null of :func:`full_ece`: the reference token of a position lies in a bin with that bin's mass."""
    null: Any = CATALOG["full_ece"].null
    found: nulls.Null = null(*_docs_of_one_position(probs, targets, n_bins), seed=seed)
    return found


def _docs_of_one_position(probs: ArrayLike, targets: ArrayLike, n_bins: int) -> tuple[FloatArray, IntArray]:
    gaps = position_gap_sums(probs, targets, n_bins=n_bins)
    return gaps, np.ones(len(gaps), dtype=np.int64)
