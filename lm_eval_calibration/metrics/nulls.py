"""Nulls: what a perfectly calibrated model would show at these forecasts and this number of docs.

``<name>_null(the arrays of <name>) -> Null``. Labels are drawn from the forecasts 1,000 times: correct is 1
with probability c (top-label), the label is k with probability p_k (classwise), the reference token of a
position lies in a bin with the probability mass of that bin (full vocabulary). The labels that were observed
matter for ``value`` and ``p_value`` only.

A value that is no larger than its null's ``upper`` says nothing against calibration, whatever it is: a plug-in
error is never 0, and at small N it is large. ``p_value`` is uniform under calibration (never too small, by
the +1 of a Monte Carlo test). Above ``EXACT_DOCS`` docs the sums over docs are drawn from their normal limit.
Bad input raises ValueError that names the row and the value; nan where the metric is undefined.

Source: consistency resampling, Broecker & Smith 2007; tests of calibration, Lee et al. 2023, arXiv:2203.01850.
"""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from lm_eval_calibration.metrics import classwise, proper_scores, ranking, top_label
from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.full_vocabulary import check_gap_sums, full_ece_from_gap_sums, position_gap_sums
from lm_eval_calibration.metrics.gap_vectors import range_membership, range_scale
from lm_eval_calibration.metrics.ranking import midranks
from lm_eval_calibration.metrics.resampling import EXACT_DOCS, covariance_root
from lm_eval_calibration.metrics.validation import (
    Choices,
    FloatArray,
    IntArray,
    Probs,
    check_choices,
    check_probability,
    check_top_label,
    undefined,
)

DRAWS = 1000
SLOW_DRAWS = 200
"""Draws of ``smece``, which takes a tenth of a second at 14,042 docs."""

CHUNK = 2**22
"""Outcomes drawn at a time: 32 MB of uniform numbers."""

ROUNDING = 1e-12
"""Differences below it are rounding."""

FEW_DOCS = 30
"""Docs of several positions below which their gap sums don't tell the noise of their total."""

Worse = Literal["higher", "lower", "further from 0"]


class Null(NamedTuple):
    """A value beside what a calibrated model would show.

    Attributes:
        value: The metric of these docs.
        mean: Its mean under calibration, in the metric's unit.
        upper: Its 95% quantile under calibration.
        p_value: Probability under calibration of a value as bad or worse: as high for an error or a loss, as
            low for ``auroc`` and ``skill_score``, as far from 0 for ``overconfidence``.
    """

    value: float
    mean: float
    upper: float
    p_value: float


def too_few_to_tell(name: str, null: Null, n_docs: int) -> str | None:
    """A sentence for the log and the report where N is too small to tell an error from calibration's noise.

    Args:
        name: The calibration error, as it is printed.
        null: Its null.
        n_docs: Number of docs.

    Returns:
        None where the value stands out from its null: p_value below 0.05 and the null's mean less than half of
        the value.
    """
    if np.isnan(null.p_value) or (null.p_value < 0.05 and null.mean < abs(null.value) / 2):
        return None
    shown = f"{name} {null.value:.4f}"
    verdict = "is mostly noise" if null.p_value < 0.05 else "doesn't tell this model from a calibrated one"
    calibrated = f"{null.mean:.4f} on average and up to {null.upper:.4f}"
    return f"{shown} {verdict} (p = {null.p_value:.2g}): a calibrated one shows {calibrated} on {n_docs} such docs"


def ece_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ece``.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        n_bins: Number of equal-width bins.
        seed: Seed of ``np.random.default_rng``.

    Returns:
        Value, mean and 95% quantile under calibration, and the p-value.

    Raises:
        ValueError: Bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    value, scale = top_label.ece(conf, hit, n_bins=n_bins), np.full(len(conf), 1 / len(conf))
    return _sum_null(value, _top_label(conf), _one_hot(bin_index(conf, n_bins), n_bins, scale), seed)


def mce_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``mce``."""
    conf, hit = check_top_label(confidence, correct)
    value, index = top_label.mce(conf, hit, n_bins=n_bins), bin_index(conf, n_bins)
    counts, expected = np.bincount(index, minlength=n_bins), bin_sums(index, conf, n_bins)
    totals = _totals(_top_label(conf), _one_hot(index, n_bins), seed)
    return _null(value, (np.abs(totals - expected) / np.maximum(counts, 1)).max(axis=1))


def rms_ce_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``rms_ce``."""
    conf, hit = check_top_label(confidence, correct)
    value, index = top_label.rms_ce(conf, hit, n_bins=n_bins), bin_index(conf, n_bins)
    counts, expected = np.bincount(index, minlength=n_bins), bin_sums(index, conf, n_bins)
    totals = _totals(_top_label(conf), _one_hot(index, n_bins), seed)
    return _null(value, np.sqrt(((totals - expected) ** 2 / np.maximum(counts, 1)).sum(axis=1) / len(conf)))


def ace_top_label_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ace_top_label``."""
    conf, hit = check_top_label(confidence, correct)
    value = top_label.ace_top_label(conf, hit, n_bins=n_bins)
    scale = np.full(n_bins, 1 / len(conf))
    return _sum_null(value, _top_label(conf), _ranges(conf, scale), seed)


def ace_one_class_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ace_one_class``."""
    conf, hit = check_top_label(confidence, correct)
    value = classwise.ace_one_class(conf, hit, n_bins=n_bins)
    return _sum_null(value, _top_label(conf), _ranges(conf, range_scale(len(conf), n_bins)), seed)


def ece_debiased_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ece_debiased``."""
    conf, hit = check_top_label(confidence, correct)
    value = top_label.ece_debiased(conf, hit, n_bins=n_bins)
    return _slow_null(value, conf, lambda drawn: top_label.ece_debiased(conf, drawn, n_bins=n_bins), seed)


def ce_l2_debiased_null(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ce_l2_debiased``."""
    conf, hit = check_top_label(confidence, correct)
    value = top_label.ce_l2_debiased(conf, hit, n_bins=n_bins)
    return _slow_null(value, conf, lambda drawn: top_label.ce_l2_debiased(conf, drawn, n_bins=n_bins), seed)


def smece_null(confidence: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``smece``, from 200 draws."""
    conf, hit = check_top_label(confidence, correct)
    return _slow_null(top_label.smece(conf, hit), conf, lambda drawn: top_label.smece(conf, drawn), seed, SLOW_DRAWS)


def overconfidence_null(confidence: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``overconfidence``; its mean is 0, its p-value two-sided."""
    conf, hit = check_top_label(confidence, correct)
    value = top_label.overconfidence(conf, hit)
    totals = _totals(_top_label(conf), _column(np.ones(len(conf))), seed)[:, 0]
    return _null(value, conf.mean() - totals / len(conf), worse="further from 0")


def confident_error_rate_null(
    confidence: ArrayLike, correct: ArrayLike, *, threshold: float = 0.9, seed: int = 0
) -> Null:
    """Null of ``confident_error_rate``."""
    conf, hit = check_top_label(confidence, correct)
    threshold = check_probability("threshold", threshold)
    value, member = top_label.confident_error_rate(conf, hit, threshold=threshold), conf >= threshold
    right = _totals(_top_label(conf), _column(member.astype(np.float64)), seed)[:, 0]
    return _null(value, 1 - right / max(1, int(np.count_nonzero(member))))


def brier_top_label_null(confidence: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``brier_top_label``: what a calibrated model of this confidence would show."""
    conf, hit = check_top_label(confidence, correct)
    value = proper_scores.brier_top_label(conf, hit)
    totals = _totals(_top_label(conf), _column(1 - 2 * conf), seed)[:, 0]
    return _null(value, (np.sum(conf**2) + totals) / len(conf))


def skill_score_null(confidence: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``skill_score``: what a calibrated model of this confidence would show."""
    conf, hit = check_top_label(confidence, correct)
    value = proper_scores.skill_score(conf, hit)
    sums = _totals(_top_label(conf), csr_array(np.column_stack([1 - 2 * conf, np.ones(len(conf))])), seed) / len(conf)
    spread = sums[:, 1] * (1 - sums[:, 1])
    drawn = np.full(len(spread), np.nan)
    np.divide(np.mean(conf**2) + sums[:, 0], spread, out=drawn, where=spread > 1e-12)
    return _null(value, 1 - drawn, worse="lower")


def auroc_null(confidence: ArrayLike, correct: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``auroc``: how well the confidence of a calibrated model would rank.

    A low p-value says that confidence tells right from wrong answers less well than its own values promise.
    """
    conf, hit = check_top_label(confidence, correct)
    value, rank = ranking.auroc(conf, hit), midranks(conf)
    rank_sum, right = _totals(_top_label(conf), csr_array(np.column_stack([rank, np.ones(len(conf))])), seed).T
    pairs = right * (len(conf) - right)
    drawn = np.full(len(pairs), np.nan)
    np.divide(rank_sum - right * (right + 1) / 2, pairs, out=drawn, where=pairs > 0.5)
    return _null(value, drawn, worse="lower")


def ace_null(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``ace``."""
    choices = check_choices(probs, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that gold is always at one position, ace itself says
        value = classwise.ace(probs, labels, n_bins=n_bins)
    return _sum_null(value, _classwise(choices), _class_ranges(choices, n_bins), seed)


def sce_null(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``sce``."""
    choices = check_choices(probs, labels)
    value, n_classes = classwise.sce(probs, labels, n_bins=n_bins), int(choices.n_choices.max())
    cell = choices.position * n_bins + bin_index(choices.probs, n_bins)
    scale = 1 / (np.bincount(choices.position)[choices.position] * n_classes)
    return _sum_null(value, _classwise(choices), _one_hot(cell, n_classes * n_bins, scale), seed)


def full_ece_choices_null(probs: Probs, labels: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``full_ece_choices``."""
    choices = check_choices(probs, labels)
    value, index = classwise.full_ece_choices(probs, labels, n_bins=n_bins), bin_index(choices.probs, n_bins)
    scale = np.full(len(index), 1 / len(choices.n_choices))
    return _sum_null(value, _classwise(choices), _one_hot(index, n_bins, scale), seed)


def brier_score_null(probs: Probs, labels: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``brier_score``: what a calibrated model of these forecasts would show."""
    choices = check_choices(probs, labels)
    totals = _totals(_classwise(choices), _column(choices.probs), seed)[:, 0]
    drawn = 1 + (np.sum(choices.probs**2) - 2 * totals) / len(choices.n_choices)
    return _null(proper_scores.brier_score(probs, labels), drawn)


def nll_null(probs: Probs, labels: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``nll``: what a calibrated model of these forecasts would show."""
    choices = check_choices(probs, labels)
    loss = -np.log(np.maximum(choices.probs, 1e-300))
    drawn = _totals(_classwise(choices), _column(loss), seed)[:, 0] / len(choices.n_choices)
    return _null(proper_scores.nll(probs, labels), drawn)


def full_ece_null(probs: ArrayLike, targets: ArrayLike, *, n_bins: int = 10, seed: int = 0) -> Null:
    """Null of ``full_ece``: the reference token of a position lies in a bin with that bin's mass."""
    gaps = position_gap_sums(probs, targets, n_bins=n_bins)
    return full_ece_from_gap_sums_null(gaps, np.ones(len(gaps), dtype=np.int64), seed=seed)


def full_ece_from_gap_sums_null(gap_sums: ArrayLike, n_positions: ArrayLike, *, seed: int = 0) -> Null:
    """Null of ``full_ece`` from gap sums.

    The gap sums of a single position tell its bins' masses: the only entry above 0 is 1 less the mass of the
    bin of its reference token, the others are the masses of theirs, negative. So where every doc has one
    position, bins are drawn from the masses. Gap sums of several positions don't; but under calibration the
    docs' gap sums have mean 0 and don't hang together, so that their total is normal with covariance
    sum_i g_i g_i^T: the noise is then that of these docs and not of their forecasts alone. Nan for fewer than
    30 docs of several positions.
    """
    gaps, n = check_gap_sums(gap_sums, n_positions)
    value, n_bins = full_ece_from_gap_sums(gaps, n), gaps.shape[1]
    if np.all(n == 1):
        masses = _bin_masses(gaps)
        position, cell = np.nonzero(masses)
        forecasts = _Forecasts(masses[position, cell], position, len(gaps))
        return _sum_null(value, forecasts, _one_hot(cell, n_bins, np.full(len(cell), 1 / len(gaps))), seed)
    if len(gaps) < FEW_DOCS:
        nan = undefined(f"the null of full_ece needs {FEW_DOCS} docs where docs have several positions")
        return Null(value, nan, nan, nan)
    return _null(value, np.abs(_normal(gaps.T @ gaps, seed)).sum(axis=1) / n.sum())


def _bin_masses(gaps: FloatArray) -> FloatArray:
    """Mass of each bin of single positions, [N, n_bins]; 0 throughout where one bin holds all: it has no noise."""
    masses, position = np.maximum(-gaps, 0), np.arange(len(gaps))
    hit = gaps.argmax(axis=1)
    masses[position, hit] = 1 - gaps[position, hit]
    masses[gaps.max(axis=1) < ROUNDING] = 0
    masses[masses < ROUNDING] = 0
    return masses


class _Forecasts(NamedTuple):
    """Forecasts of which at most one a doc comes true, each with its probability."""

    probs: FloatArray
    doc: IntArray
    n_docs: int


def _top_label(conf: FloatArray) -> _Forecasts:
    return _Forecasts(conf, np.arange(len(conf)), len(conf))


def _classwise(choices: Choices) -> _Forecasts:
    return _Forecasts(choices.probs, choices.doc, len(choices.n_choices))


def _totals(forecasts: _Forecasts, weights: csr_array, seed: int, draws: int = DRAWS) -> FloatArray:
    """Sums over the forecasts that come true of their weights [n_forecasts, F], on every draw: [draws, F]."""
    if forecasts.n_docs > EXACT_DOCS:
        expected = weights.multiply(forecasts.probs[:, None]).tocsr()
        ones, forecast = np.ones(len(forecasts.doc)), np.arange(len(forecasts.doc))
        of_doc = csr_array((ones, (forecasts.doc, forecast)), shape=(forecasts.n_docs, len(forecast))) @ expected
        covariance = (weights.T @ expected - of_doc.T @ of_doc).toarray()
        return np.asarray(expected.sum(axis=0) + _normal(covariance, seed, draws))
    rng, step = np.random.default_rng(seed), max(1, CHUNK // len(forecasts.probs))
    chunks = [min(step, draws - start) for start in range(0, draws, step)]
    totals: FloatArray = np.concatenate([(weights.T @ _outcomes(forecasts, rng, n)).T for n in chunks])
    return totals


def _outcomes(forecasts: _Forecasts, rng: np.random.Generator, draws: int) -> FloatArray:
    """1 where a forecast comes true, [n_forecasts, draws]: its doc's uniform number is within its share."""
    probs, doc, n_docs = forecasts
    first = np.searchsorted(doc, doc)
    reached = np.concatenate([[0.0], np.cumsum(probs)])
    start, end = reached[:-1] - reached[first], reached[1:] - reached[first]
    uniform = rng.random((n_docs, draws))[doc]
    comes_true: NDArray[np.bool_] = (start[:, None] <= uniform) & (uniform < end[:, None])
    return comes_true.astype(np.float64)


def _normal(covariance: FloatArray, seed: int, draws: int = DRAWS) -> FloatArray:
    noise = np.random.default_rng(seed).standard_normal((draws, len(covariance)))
    return noise @ covariance_root(covariance)


def _null(value: float, drawn: FloatArray, *, worse: Worse = "higher") -> Null:
    """The draws beside the value; draws on which the metric is undefined are left out."""
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(drawn) == 0:
        nan = float("nan")
        return Null(value, nan, nan, nan)
    badness: dict[Worse, Callable[[FloatArray], FloatArray]] = {
        "higher": lambda x: x,
        "lower": lambda x: -x,
        "further from 0": np.abs,
    }
    as_bad = badness[worse](drawn) >= badness[worse](np.asarray(value)) - ROUNDING
    p_value = (1 + int(np.count_nonzero(as_bad))) / (1 + len(drawn))
    return Null(value, float(drawn.mean()), float(np.quantile(drawn, 0.95)), p_value)


def _sum_null(value: float, forecasts: _Forecasts, weights: csr_array, seed: int) -> Null:
    """Null of an error that is the sum of the sizes of the cells' weighted gaps."""
    expected = weights.T @ forecasts.probs
    return _null(value, np.abs(_totals(forecasts, weights, seed) - expected).sum(axis=1))


def _slow_null(
    value: float, conf: FloatArray, metric: Callable[[FloatArray], float], seed: int, draws: int = DRAWS
) -> Null:
    """Null of a metric that is computed anew on every draw."""
    rng = np.random.default_rng(seed)
    if np.isnan(value):
        return _null(value, np.empty(0))
    drawn = [metric((rng.random(len(conf)) < conf).astype(np.float64)) for _ in range(draws)]
    return _null(value, np.array(drawn))


def _one_hot(cell: IntArray, n_cells: int, scale: FloatArray | None = None) -> csr_array:
    values = np.ones(len(cell)) if scale is None else scale
    return csr_array((values, (np.arange(len(cell)), cell)), shape=(len(cell), n_cells))


def _column(values: FloatArray) -> csr_array:
    return csr_array(values[:, None])


def _ranges(forecasts: FloatArray, scale: FloatArray) -> csr_array:
    return csr_array(np.diff(range_membership(forecasts, len(scale)), axis=1) * scale)


def _class_ranges(choices: Choices, n_bins: int) -> csr_array:
    """Scaled membership of every forecast in the ranges of its class, classes side by side."""
    n_classes = int(choices.n_choices.max())
    rows, columns, values = [], [], []
    for k in range(n_classes):
        member = np.flatnonzero(choices.position == k)
        ranges = _ranges(choices.probs[member], range_scale(len(member), n_bins) / n_classes).tocoo()
        rows.append(member[ranges.row])
        columns.append(ranges.col + k * n_bins)
        values.append(ranges.data)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=(len(choices.probs), n_classes * n_bins))
