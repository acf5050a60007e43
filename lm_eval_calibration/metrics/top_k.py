"""Full-ECE from the k most probable entries of each distribution: what it must be at least, and can be at most."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index
from lm_eval_calibration.metrics.token_sums import gap_sums_of_positions
from lm_eval_calibration.metrics.validation import SUM_TOLERANCE, FloatArray, check_n_bins, check_probability_vector


class Bounds(NamedTuple):
    """What a value can be.

    Attributes:
        low: at least.
        high: at most.
    """

    low: float
    high: float


def full_ece_bounds(
    large_probs: Sequence[ArrayLike], target_probs: ArrayLike, complete_from: ArrayLike, *, n_bins: int = 10
) -> Bounds:
    """Bounds of :func:`~lm_eval_calibration.metrics.full_ece` where some entries of a distribution are not known.

    Let g_m be the hits less the known probability mass of bin m over all positions, and R the mass that is not known
    (sum_m g_m = R). What of it falls in bin m is at most C_m, the unknown mass of the positions whose unknown entries
    can be as large as m/M. Full-ECE is 2/N sum_m max(0, g_m - x_m) for some x with 0 <= x_m <= C_m and
    sum_m x_m = R; low and high are its least and (by the concave envelope of min(x_m, g_m)) its largest value.

    large_probs: n vectors of known probabilities, the reference token's among them if it is known to be one of the
    most probable. target_probs: [N] probability of each reference token. complete_from: [N] no entry that is not
    known is larger than this; where it is below 1/n_bins the position leaves nothing open. n_bins: number of
    equal-width bins.
    Returns bounds in expected tokens per position, 0 to 2, equal where nothing is open. Raises ValueError: bad input;
    the message names position and value.
    """
    n_bins = check_n_bins(n_bins)
    target, largest = (
        check_probability_vector("target_probs", target_probs),
        check_probability_vector("complete_from", complete_from),
    )
    if not len(large_probs) == len(target) == len(largest) > 0:
        raise ValueError(
            f"large_probs has {len(large_probs)} positions, target_probs {len(target)}, complete_from {len(largest)}"
        )
    known = [_with_target(np.asarray(probs, dtype=np.float64), p) for probs, p in zip(large_probs, target, strict=True)]
    # gap_sums_of_positions puts all mass that is not given into bin 0: taken out again, it is what is not known.
    gaps = gap_sums_of_positions(np.concatenate(known), [len(p) for p in known], target, n_bins=n_bins).sum(axis=0)
    unknown = np.maximum(0.0, 1.0 - np.array([p.sum() for p in known]))
    highest = bin_index(np.minimum(largest, unknown), n_bins)
    is_open = highest > 0
    free = float(unknown[is_open].sum())
    gaps[0] += free
    room = (unknown[is_open, None] * (np.arange(n_bins) <= highest[is_open, None])).sum(axis=0)
    return Bounds(*(float(2 * value / len(target)) for value in _extremes(gaps, room, free)))


def _extremes(gaps: FloatArray, room: FloatArray, free: float) -> tuple[float, float]:
    """Least and (an upper bound of the) largest sum_m max(0, g_m - x_m)."""
    positive = np.maximum(gaps, 0.0)
    low = positive.sum() - min(free, np.minimum(positive, room).sum())
    rest, filled = free - room[gaps <= 0].sum(), 0.0  # mass where nothing was hit lowers no gap
    ratio = np.divide(positive, room, out=np.zeros_like(room), where=room > 0)
    for m in sorted(np.flatnonzero((gaps > 0) & (room > 0)), key=lambda m: ratio[m]):
        if rest <= 0:
            break
        taken = min(rest, room[m])
        filled += taken * min(1.0, ratio[m])
        rest -= taken
    return max(0.0, low), max(0.0, low, positive.sum() - filled)


def _with_target(probs: FloatArray, target: float) -> FloatArray:
    """The known entries; the reference token's probability is known even where the entry is not among those given."""
    if len(probs) and (np.abs(probs - target) <= SUM_TOLERANCE).any():
        return probs
    return np.append(probs, target)
