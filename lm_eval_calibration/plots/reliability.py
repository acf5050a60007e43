"""The reliability diagram: in each bin of confidence, the accuracy against the mean confidence."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_edges, bin_index, bin_sums
from lm_eval_calibration.metrics.validation import check_top_label

LEVEL = 0.95


class ReliabilityBin(NamedTuple):
    """One bar.

    Attributes:
        low: lower edge of the bin.
        high: upper edge.
        n_docs: docs in it.
        confidence: their mean confidence; nan where there are none, as for what follows.
        accuracy: share of them that is right.
        band_low: below it their accuracy would be at most 2.5% of the time, were the model calibrated.
        band_high: above it likewise.
    """

    low: float
    high: float
    n_docs: int
    confidence: float
    accuracy: float
    band_low: float
    band_high: float

    @property
    def gap(self) -> float:
        """Accuracy less confidence; 0 where the bin is empty."""
        return self.accuracy - self.confidence if self.n_docs else 0.0

    @property
    def is_off(self) -> bool:
        """Whether the accuracy lies outside the band."""
        return self.n_docs > 0 and not self.band_low <= self.accuracy <= self.band_high


class Reliability(NamedTuple):
    """What a reliability diagram shows.

    Attributes:
        bins: from low confidence to high, the empty ones too.
        n_docs: docs in all.
    """

    bins: tuple[ReliabilityBin, ...]
    n_docs: int

    @property
    def ece(self) -> float:
        """The ECE that the bars add up to: sum of n_docs / N * abs(gap)."""
        return sum(b.n_docs * abs(b.gap) for b in self.bins) / self.n_docs


def prepare_reliability(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> Reliability:
    """Return the bars of a reliability diagram with equal-width bins.

    The band of a bin is where its accuracy would lie 95% of the time, had its answers been right as often as the
    model says: quantiles of the binomial distribution of its docs and mean confidence (which is a little wider than
    that of the docs' own confidences). One bin of twenty lies outside by chance.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: number of bins.

    Raises:
        ValueError: bad input; the message names the row and the value.

    Source: consistency bars, Bröcker & Smith 2007.
    """
    conf, hit = check_top_label(confidence, correct)
    edges, index = bin_edges(n_bins).tolist(), bin_index(conf, n_bins)
    sums = zip(bin_sums(index, conf, n_bins).tolist(), bin_sums(index, hit, n_bins).tolist(), strict=True)
    counts = np.bincount(index, minlength=n_bins).tolist()
    rows = zip(edges[:-1], edges[1:], counts, sums, strict=True)
    return Reliability(tuple(_bar(low, high, n, *of_bin) for low, high, n, of_bin in rows), len(conf))


def _bar(start: float, end: float, n_docs: int, confidence_sum: float, n_correct: float) -> ReliabilityBin:
    from scipy.stats import binom  # takes a second, which only pictures need

    if not n_docs:
        return ReliabilityBin(start, end, 0, *[math.nan] * 4)
    confidence = min(1.0, confidence_sum / n_docs)
    low, high = (float(binom.ppf(q, n_docs, confidence)) / n_docs for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return ReliabilityBin(start, end, n_docs, confidence, n_correct / n_docs, low, high)
