"""Top-label calibration errors: is a doc answered with confidence c right with probability c?

Every function takes ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and raises
ValueError that names the first bad row and its value.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, equal_mass_gaps, range_gaps, sizes_of_at_least
from lm_eval_calibration.metrics.registry import define, metric
from lm_eval_calibration.metrics.uncertainty import gap_vectors, nulls
from lm_eval_calibration.metrics.uncertainty.clusters import effective_docs
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, mean_of, too_few_docs, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.inversion import error_estimate, inverted_tests, one_forecast
from lm_eval_calibration.metrics.uncertainty.ranges import ranges_stderr, sort_forecasts
from lm_eval_calibration.metrics.uncertainty.resampling import binned_stderr
from lm_eval_calibration.metrics.uncertainty.shares import exact_intervals
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_n_bins, check_top_label, undefined

SMOOTHING_POINTS = 200

SMOOTHING_DRAWS = 200
"""Draws of the null of ``smece``, which takes a tenth of a second at 14,042 docs."""

BIN_SIZE = 100
"""Docs in a bin of ``rms_ce_mass``."""

MAX_DOCS_OF_MASS_INTERVAL = 50_000
"""Docs above which ``rms_ce_mass`` has no interval: its memory grows with docs times bins, 200 MB here."""

Counts = FloatArray | IntArray
Formula = Callable[[FloatArray, Counts], FloatArray]


# The formulas take gaps n_m (acc_m - conf_m) and counts n_m, [..., n_bins]: one sample, or all draws at once.


def sum_of_gaps(gaps: FloatArray, counts: Counts) -> FloatArray:
    """Sum of the sizes of the gaps over the number of docs."""
    return np.asarray(np.abs(gaps).sum(axis=-1) / counts.sum(axis=-1))


def _mce(gaps: FloatArray, counts: Counts) -> FloatArray:
    return np.asarray(np.max(np.abs(gaps) / np.maximum(counts, 1), axis=-1))


def _rms_ce(gaps: FloatArray, counts: Counts) -> FloatArray:
    squares = (gaps**2 / np.maximum(counts, 1)).sum(axis=-1)
    return np.asarray(np.sqrt(squares / counts.sum(axis=-1)))


def _over_bins(formula: Formula) -> dict[str, Any]:
    """Standard error and null of a formula over equal-width bins."""
    return {"stderr": partial(_bins_stderr, formula), "null": partial(_bins_null, formula)}


def _bins_value(formula: Formula, confidence: ArrayLike, correct: ArrayLike, n_bins: int) -> float:
    """The formula over equal-width bins."""
    conf, hit = check_top_label(confidence, correct)
    index = bin_index(conf, n_bins)
    return float(formula(bin_sums(index, hit - conf, n_bins), np.bincount(index, minlength=n_bins)))


def _bins_stderr(
    formula: Formula,
    conf: FloatArray,
    hit: FloatArray,
    *,
    n_bins: int,
    draws: int,
    seed: int,
    cluster: IntArray | None = None,
) -> float:
    doc, index = np.arange(len(conf)), bin_index(conf, n_bins)
    sums = np.zeros((len(conf), 2 * n_bins))
    sums[doc, index], sums[doc, n_bins + index] = hit - conf, 1
    return binned_stderr(formula, sums, n_bins, draws=draws, seed=seed, strata=index, cluster=cluster)


def _bins_null(
    formula: Formula,
    conf: FloatArray,
    hit: FloatArray,
    *,
    n_bins: int,
    seed: int,
    cluster: IntArray | None = None,
) -> FloatArray:
    index, forecasts = bin_index(conf, n_bins), nulls.forecasts_of_docs(conf, hit, cluster)
    gaps = nulls.drawn_gaps(forecasts, nulls.bins_membership(index, n_bins), seed)
    return formula(gaps, np.bincount(index, minlength=n_bins))


@metric(
    "top_label",
    higher_is_better=False,
    core=("choices", "generation"),
    order=2,
    estimate=inverted_tests(gap_vectors.equal_width_gaps, null=partial(_bins_null, sum_of_gaps), per_doc=one_forecast),
    **_over_bins(sum_of_gaps),
)
def ece(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Expected calibration error: sum_m (n_m / N) |acc_m - conf_m| over equal-width bins.

    A plug-in estimate, biased upward: report it beside its null.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of bins; empty ones add 0.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    return _bins_value(sum_of_gaps, confidence, correct, n_bins)


def _mce_estimate(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, level: float, cluster: IntArray | None = None
) -> Estimate:
    """Clopper-Pearson intervals of the accuracy of each bin that hold together (Bonferroni).

    They cover more often than ``level`` and are wide wherever some bin has few docs: that is how little these say
    about a maximum.
    """
    vector, index = gap_vectors.equal_width_gaps(conf, hit, n_bins=n_bins), bin_index(conf, n_bins)
    if reason := too_few_docs(len(conf)):
        return undefined_estimate(len(conf), reason)
    counts = np.bincount(index, minlength=n_bins)
    live = counts > 0
    effective = effective_docs(hit, cluster, level) / len(hit)
    mean_conf = bin_sums(index, conf, n_bins)[live] / counts[live]
    n, right = counts[live] * effective, bin_sums(index, hit, n_bins)[live] * effective
    tail = (1 - level) / 2 / np.count_nonzero(live)
    lowest, highest = exact_intervals(right, np.asarray(n, dtype=np.float64), tail)
    nearest = np.maximum(np.maximum(lowest - mean_conf, mean_conf - highest), 0)
    farthest = np.maximum(highest - mean_conf, mean_conf - lowest)
    error = right / n - mean_conf
    worst = int(np.argmax(np.abs(error)))
    influence = (
        vector.influence[:, np.flatnonzero(live)[worst]] * np.sign(error[worst]) * len(conf) / counts[live][worst]
    )
    return Estimate(float(np.abs(error[worst])), float(nearest.max()), float(farthest.max()), influence)


@metric("top_label", higher_is_better=False, order=9, estimate=_mce_estimate, **_over_bins(_mce))
def mce(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Maximum calibration error: max_m |acc_m - conf_m| over the equal-width bins that hold a doc.

    One doc alone in a bin can make it large: not an estimate of anything at small N.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of bins.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Naeini et al. 2015.
    """
    return _bins_value(_mce, confidence, correct, n_bins)


def _rms_gaps(conf: FloatArray, hit: FloatArray, *, n_bins: int) -> gap_vectors.GapVector:
    return gap_vectors.root_gaps(conf, hit, bin_index(conf, n_bins), n_bins)


@metric(
    "top_label",
    higher_is_better=False,
    order=10,
    estimate=inverted_tests(_rms_gaps, "root", null=partial(_bins_null, _rms_ce)),
    **_over_bins(_rms_ce),
)
def rms_ce(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Root mean square calibration error: sqrt(sum_m (n_m / N) (acc_m - conf_m)^2) over equal-width bins.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of bins; empty ones add 0.
    Returns a probability, 0 (best) to 1; never below :func:`ece`. Raises ValueError for bad input, naming the row and
    the value.
    Source: Hendrycks et al. 2019, arXiv:1812.04606, with equal-width bins.
    """
    return _bins_value(_rms_ce, confidence, correct, n_bins)


def _mass_estimate(
    conf: FloatArray, hit: FloatArray, *, level: float, seed: int, cluster: IntArray | None = None
) -> Estimate:
    if len(conf) > MAX_DOCS_OF_MASS_INTERVAL:
        return undefined_estimate(len(conf), f"no interval of more than {MAX_DOCS_OF_MASS_INTERVAL} docs")
    vector = gap_vectors.root_range_gaps(conf, hit, sizes_of_at_least(len(conf), BIN_SIZE))
    return error_estimate(vector, "root", level=level, seed=seed, cluster=cluster)


@metric("top_label", higher_is_better=False, order=10, estimate=_mass_estimate)
def rms_ce_mass(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Root mean square calibration error over bins of 100 docs: sqrt(sum_m (n_m / N) (acc_m - conf_m)^2).

    Docs are sorted by confidence and cut every 100 docs; the last of the max(1, N // 100) bins also takes the docs
    that are left. Ties take their mean outcome first, so the order of the docs is no matter. This is the "calibration
    error" of Humanity's Last Exam and BrowseComp with every bin in it; see :func:`rms_ce_mass_without_last`.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Hendrycks et al. 2019, arXiv:1812.04606; Phan et al. 2025, arXiv:2501.14249; Wei et al. 2025,
    arXiv:2504.12516.
    """
    conf, hit = check_top_label(confidence, correct)
    sizes = sizes_of_at_least(len(conf), BIN_SIZE)
    return float(_rms_ce(range_gaps(conf, hit, sizes), sizes))


def rms_ce_mass_without_last(confidence: ArrayLike, correct: ArrayLike) -> float:
    """As :func:`rms_ce_mass`, the bin of the most confident docs left out of the sum (N stays the number of all docs).

    The loop of the published code ends one bin early, so this is what its figures are, up to the order of ties. It is
    here to be compared with those, and nowhere else: the docs that it leaves out are those where overconfidence shows.

    Returns nan with UndefinedMetricWarning for fewer than 200 docs, which leave no bin (the published code gives 0).
    Source: the function ``calib_err`` of Hendrycks et al. 2019 (github.com/hendrycks/outlier-exposure), which the code
    of Humanity's Last Exam has, too.
    """
    conf, hit = check_top_label(confidence, correct)
    sizes = sizes_of_at_least(len(conf), BIN_SIZE)
    if len(sizes) == 1:
        return undefined(f"{len(conf)} docs make one bin of at least {BIN_SIZE}, and the last bin is left out")
    gaps = range_gaps(conf, hit, sizes)
    return float(np.sqrt((gaps[:-1] ** 2 / sizes[:-1]).sum() / len(conf)))


RMS_CE_MASS_WITHOUT_LAST = define(rms_ce_mass_without_last, "top_label", higher_is_better=False)
"""In no catalog, since no result should be reported by it alone."""


def _ranges_stderr(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    ranked = sort_forecasts(np.arange(len(conf)), conf, hit)
    options: dict[str, Any] = {"n_bins": n_bins, "draws": draws, "seed": seed, "cluster": cluster}
    return ranges_stderr(lambda gaps, sizes: sum_of_gaps(gaps[:, 0], sizes[:, 0]), [ranked], len(conf), **options)


def _ranges_null(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    scale = np.full(n_bins, 1 / len(conf))
    return nulls.drawn_errors(nulls.forecasts_of_docs(conf, hit, cluster), nulls.ranges_membership(conf, scale), seed)


@metric(
    "top_label",
    higher_is_better=False,
    order=6,
    stderr=_ranges_stderr,
    estimate=inverted_tests(gap_vectors.top_label_range_gaps, null=_ranges_null),
    null=_ranges_null,
)
def ace_top_label(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Top-label error over equal-mass ranges: sum_r (n_r / N) |acc_r - conf_r|. Often called "adaptive ECE".

    Ranges are those of ``np.array_split`` on the sorted confidences; ties take their mean outcome first. Not
    ``ace``, which is classwise. Many papers call this one ECE (of equal mass); ``ece`` has bins of equal width.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of ranges.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Mukhoti et al. 2020, arXiv:2002.09437; Nguyen & O'Connor 2015, arXiv:1508.05154.
    """
    conf, hit = check_top_label(confidence, correct)
    return float(sum_of_gaps(*equal_mass_gaps(conf, hit, check_n_bins(n_bins))))


def _smece_estimate(
    conf: FloatArray, hit: FloatArray, *, level: float, seed: int, cluster: IntArray | None = None
) -> Estimate:
    """The smoothed error at the bandwidth that the docs chose, which is the value itself."""
    if reason := too_few_docs(len(conf)):
        return undefined_estimate(len(conf), reason)
    bandwidth = max(smece(conf, hit), 1 / SMOOTHING_POINTS)
    vector = gap_vectors.smoothed_gaps(conf, hit, bandwidth, SMOOTHING_POINTS)
    return error_estimate(vector, "sum", level=level, seed=seed, cluster=cluster)


def _smece_null(conf: FloatArray, hit: FloatArray, *, seed: int) -> FloatArray:
    return nulls.redrawn(nulls.redraw_correct, smece, conf, hit, seed=seed, draws=SMOOTHING_DRAWS)


@metric("top_label", higher_is_better=False, order=15, requires="relplot", estimate=_smece_estimate, null=_smece_null)
def smece(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Smooth calibration error: kernel-smoothed ECE whose bandwidth equals its value. No bins.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value. Raises
    ImportError: the package relplot is not installed.
    Source: Błasiok & Nakkiran 2023, arXiv:2309.12236; computed by their package relplot.
    """
    conf, hit = check_top_label(confidence, correct)
    try:
        import relplot
    except ImportError as error:
        raise ImportError("smece needs the package relplot: pip install relplot") from error
    return float(relplot.smECE(conf, hit))


def _signed_gaps(conf: FloatArray, hit: FloatArray) -> FloatArray:
    return conf - hit


def _answers(conf: FloatArray, hit: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A wrong answer adds 1."""
    return 1 - hit, np.ones(len(conf)), gap_vectors.calibrated_variance(conf, len(conf))


def _overconfidence_null(
    conf: FloatArray, hit: FloatArray, *, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    right = nulls.drawn_totals(nulls.forecasts_of_docs(conf, hit, cluster), np.ones(len(conf)), seed)
    return np.asarray(conf.mean() - right / len(conf))


@metric(
    "top_label",
    higher_is_better=None,
    order=19,
    null=_overconfidence_null,
    **mean_of(_signed_gaps, _answers, limits=(-1, 1)),
)
def overconfidence(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean confidence less accuracy: mean_i (c_i - h_i).

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns a difference of probabilities, -1 to 1; above 0 the model is overconfident, below 0 underconfident. Raises
    ValueError for bad input, naming the row and the value.
    """
    return float(np.mean(_signed_gaps(*check_top_label(confidence, correct))))
