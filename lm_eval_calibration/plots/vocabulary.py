"""Where Full-ECE comes from: in each bin, the probability given to vocabulary entries and how often they occurred."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_edges, bin_index, bin_sums


class VocabularyBin(NamedTuple):
    """One bin, over all positions.

    Attributes:
        low: lower edge.
        high: upper edge.
        mass: sum of the probabilities in it.
        hits: how many of the reference tokens had a probability in it.
    """

    low: float
    high: float
    mass: float
    hits: float


class Vocabulary(NamedTuple):
    """What the diagram of Full-ECE shows.

    Attributes:
        bins: from low probability to high.
        n_positions: number of positions.
    """

    bins: tuple[VocabularyBin, ...]
    n_positions: int

    @property
    def full_ece(self) -> float:
        """The Full-ECE that the bins add up to: sum of abs(hits - mass) / N."""
        return sum(abs(b.hits - b.mass) for b in self.bins) / self.n_positions

    @classmethod
    def together(cls, parts: Iterable["Vocabulary"]) -> "Vocabulary":
        """Return the bins of several sets of positions as one."""
        some = list(parts)
        columns = zip(*(part.bins for part in some), strict=True)
        bins = (VocabularyBin(b[0].low, b[0].high, sum(x.mass for x in b), sum(x.hits for x in b)) for b in columns)
        return cls(tuple(bins), sum(part.n_positions for part in some))


class VocabularyCounter:
    """Adds up the bins of positions, which are not kept.

    Args:
        n_bins: number of bins.
    """

    def __init__(self, n_bins: int) -> None:
        self._n_bins = n_bins
        self._mass, self._hits = np.zeros(n_bins), np.zeros(n_bins)
        self._n_positions = 0

    def add(self, log_probs: ArrayLike, large_probs: ArrayLike) -> None:
        """Take positions: the reference tokens' log-probabilities, and all their large probabilities together."""
        large = np.minimum(np.asarray(large_probs, dtype=np.float64), 1.0)
        target = np.minimum(np.exp(np.asarray(log_probs, dtype=np.float64)), 1.0)
        self._mass += bin_sums(bin_index(large, self._n_bins), large, self._n_bins)
        self._hits += bin_sums(bin_index(target, self._n_bins), np.ones(len(target)), self._n_bins)
        self._n_positions += len(target)

    def extend(self, other: Self) -> None:
        """Take another's positions."""
        self._mass += other._mass
        self._hits += other._hits
        self._n_positions += other._n_positions

    def result(self) -> Vocabulary | None:
        """Return the bins; None where there were no positions."""
        if not self._n_positions:
            return None
        mass, edges = self._mass.copy(), bin_edges(self._n_bins).tolist()
        mass[0] = self._n_positions - mass[1:].sum()  # all probabilities of a position add up to 1
        rows = zip(edges[:-1], edges[1:], mass.tolist(), self._hits.tolist(), strict=True)
        return Vocabulary(tuple(VocabularyBin(*row) for row in rows), self._n_positions)
