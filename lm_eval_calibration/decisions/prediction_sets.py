"""Which options can be ruled out: sets of options that hold the right one as often as promised (split conformal).

A nonconformity score s(x, k) is large where option k looks wrong. With q the ceil((n + 1) (1 - alpha))-th smallest
score of the right options of n calibration docs, the set of a new doc, {k : s(x, k) <= q}, holds the right option with
probability at least 1 - alpha, and at most 1 - alpha + 1 / (n + 1) where scores are not tied, if docs are exchangeable.
Source: Vovk, Gammerman & Shafer 2005; Ye et al. 2024, arXiv:2401.12794, for language models.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics.validation import FloatArray, IntArray, Probs

RAPS_PENALTY, RAPS_FREE = 0.1, 1
"""RAPS adds the penalty for each rank beyond the first ``RAPS_FREE``."""


def lac(probs: FloatArray) -> FloatArray:
    """1 - p_k: the smallest sets on average. [N, K] to [N, K]. Source: Sadinle, Lei & Wasserman 2019."""
    return 1 - probs


def aps(probs: FloatArray) -> FloatArray:
    """Sum of the probabilities that are at least p_k. [N, K] to [N, K]. Source: Romano et al., arXiv:2006.02544.

    Without the random number of the paper: the same doc has the same set every time. Equal options have equal scores.
    Computed as 1 less the other probabilities: the least probable option's is 1 in every doc, not 1 up to rounding.
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, axis=1)
    sums = np.ones(probs.shape)
    sums[:, :-1] -= np.cumsum(ranked[:, :0:-1], axis=1)[:, ::-1]
    for k in range(probs.shape[1] - 2, -1, -1):  # the last of equals has the sum of all of them
        sums[:, k] = np.where(ranked[:, k] == ranked[:, k + 1], sums[:, k + 1], sums[:, k])
    return _unsorted(sums, order)


def raps(probs: FloatArray) -> FloatArray:
    """APS and 0.1 for each rank beyond the first: against long sets. Source: Angelopoulos et al., arXiv:2009.14193."""
    order = np.argsort(-probs, axis=1, kind="stable")
    ranks = np.arange(1, probs.shape[1] + 1)
    penalty = np.broadcast_to(RAPS_PENALTY * np.maximum(0, ranks - RAPS_FREE), probs.shape)
    return aps(probs) + _unsorted(penalty, order)


SCORES: dict[str, Callable[[FloatArray], FloatArray]] = {"lac": lac, "aps": aps, "raps": raps}
"""Nonconformity scores of all options, by name."""


def option_scores(name: str, probs: Probs) -> list[FloatArray] | FloatArray:
    """The score of every option: [N, K], or N vectors."""
    if isinstance(probs, np.ndarray):
        return SCORES[name](probs)
    rows = [np.asarray(row, dtype=np.float64) for row in probs]  # type: ignore[union-attr]
    found: list[Any] = [None] * len(rows)
    for width in {len(row) for row in rows}:
        which = [i for i, row in enumerate(rows) if len(row) == width]
        for i, scores in zip(which, SCORES[name](np.stack([rows[i] for i in which])), strict=True):
            found[i] = scores
    return found


def quantile(scores: FloatArray, alpha: float) -> float:
    """q: the ceil((n + 1) (1 - alpha))-th smallest score; inf, which rules nothing out, where n is too small."""
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def cross_conformal_quantiles(
    scores: FloatArray, fold: IntArray, calibrates: NDArray[np.bool_], alpha: float
) -> FloatArray:
    """[N] q of each doc from the docs of the other folds: where docs are few, each is judged and calibrates others.

    The model was not fitted on any of these docs, so nothing is fitted again. Source: Vovk 2015.

    Args:
        scores: [N] of the right options.
        fold: [N].
        calibrates: [N] False for docs that only show (more than one of a cluster).
        alpha: 1 less the promised coverage.
    """
    found = np.empty(len(scores))
    for k in np.unique(fold):
        found[fold == k] = quantile(scores[(fold != k) & calibrates], alpha)
    return found


def uacc(accuracy: float, set_size: float, n_options: int) -> float:
    """Uncertainty-aware accuracy: accuracy / set_size * sqrt(n_options), 0 to sqrt(n_options); nan of empty sets.

    Args:
        accuracy: share of right answers.
        set_size: mean size of the sets.
        n_options: options of each question.

    Source: Ye et al. 2024, arXiv:2401.12794.
    """
    return accuracy / set_size * math.sqrt(n_options) if set_size else math.nan


def _unsorted(ranked: FloatArray, order: IntArray) -> FloatArray:
    """Values by rank back in the order of the options."""
    back = np.empty(ranked.shape)
    np.put_along_axis(back, order, ranked, axis=1)
    return back
