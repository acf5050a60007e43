"""Calibration errors of confidences that take a few values only: words, or shares of several samples."""

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.registry import define
from lm_eval_calibration.metrics.top_label_errors import sum_of_gaps
from lm_eval_calibration.metrics.uncertainty import gap_vectors, nulls
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.inversion import inverted_tests
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_top_label, undefined

MAX_VALUES = 20
"""Different confidences up to which each has a bin of its own."""


def _bins(conf: FloatArray) -> tuple[IntArray, int]:
    """The bin of each doc, which is that of its confidence, and the number of bins."""
    values, index = np.unique(conf, return_inverse=True)
    return np.asarray(index, dtype=np.int64), len(values)


def _null(conf: FloatArray, hit: FloatArray, *, seed: int, cluster: IntArray | None = None) -> FloatArray:
    index, n_values = _bins(conf)
    forecasts = nulls.forecasts_of_docs(conf, hit, cluster)
    gaps = nulls.drawn_gaps(forecasts, nulls.bins_membership(index, n_values), seed)
    return sum_of_gaps(gaps, np.bincount(index, minlength=n_values))


_inverted = inverted_tests(gap_vectors.value_gaps, null=_null)


def _estimate(
    conf: FloatArray, hit: FloatArray, *, level: float, seed: int, cluster: IntArray | None = None
) -> Estimate:
    if reason := _too_many(_bins(conf)[1]):
        return undefined_estimate(len(conf), reason)
    return _inverted(conf, hit, level=level, seed=seed, cluster=cluster)


def _too_many(n_values: int) -> str | None:
    reason = f"ece_values is undefined: {n_values} different confidences, more than {MAX_VALUES}"
    return reason if n_values > MAX_VALUES else None


def ece_values(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Expected calibration error with one bin for each value: sum_v (n_v / N) |acc_v - v|.

    For confidences that take at most 20 values, such as shares of ten samples or numbers said in words. Equal-width
    bins hold several of these, 0.9 and 1.0 for instance, and opposite errors within a bin cancel.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a probability, 0 (best) to 1; nan with UndefinedMetricWarning where there are more than 20 values. Raises
    ValueError for bad input, naming the row and the value.
    Source: Naeini et al. 2015 with these bins; Broecker & Smith 2007 for forecasts of few values.
    """
    conf, hit = check_top_label(confidence, correct)
    index, n_values = _bins(conf)
    if reason := _too_many(n_values):
        return undefined(reason)
    return float(sum_of_gaps(bin_sums(index, hit - conf, n_values), np.bincount(index, minlength=n_values)))


ECE_VALUES = define(ece_values, "top_label", higher_is_better=False, estimate=_estimate, null=_null)
"""In no catalog: of confidences that take any value, as most do, it is undefined."""

ece_values_stderr = ECE_VALUES.stderr
ece_values_interval = ECE_VALUES.interval
ece_values_null = ECE_VALUES.null
