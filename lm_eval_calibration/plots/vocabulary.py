"""Where Full-ECE comes from: in each bin, the probability given to vocabulary entries and how often they occurred."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

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
        self._large: list[float] = []
        self._log_probs: list[float] = []

    def add(self, log_probs: Sequence[float], large_probs: Iterable[Sequence[float]]) -> None:
        """Take positions: the reference token's log-probability, and all large probabilities, of each."""
        self._log_probs.extend(log_probs)
        for large in large_probs:
            self._large.extend(large)
        if len(self._log_probs) > 4096:
            self._count()

    def result(self) -> Vocabulary | None:
        """Return the bins; None where there were no positions."""
        self._count()
        if not self._n_positions:
            return None
        mass, edges = self._mass.copy(), bin_edges(self._n_bins).tolist()
        mass[0] = self._n_positions - mass[1:].sum()  # all probabilities of a position add up to 1
        rows = zip(edges[:-1], edges[1:], mass.tolist(), self._hits.tolist(), strict=True)
        return Vocabulary(tuple(VocabularyBin(*row) for row in rows), self._n_positions)

    def _count(self) -> None:
        large = np.minimum(np.asarray(self._large), 1.0)
        target = np.minimum(np.exp(np.asarray(self._log_probs)), 1.0)
        self._mass += bin_sums(bin_index(large, self._n_bins), large, self._n_bins)
        self._hits += bin_sums(bin_index(target, self._n_bins), np.ones(len(target)), self._n_bins)
        self._n_positions += len(target)
        self._large, self._log_probs = [], []
