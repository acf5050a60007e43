"""Nulls: what a perfectly calibrated model would show at these forecasts and this number of docs.

Outcomes are drawn from the forecasts 1,000 times: correct is 1 with probability c (top-label), the label is k with
probability p_k (classwise), the reference token of a position lies in a bin with the probability mass of that bin
(full vocabulary). Above ``EXACT_DOCS`` docs the sums over docs are drawn from their normal limit.

Source: consistency resampling, Broecker & Smith 2007; tests of calibration, Lee et al. 2023, arXiv:2203.01850.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lm_eval_calibration.metrics.uncertainty import resampling
from lm_eval_calibration.metrics.uncertainty.gap_vectors import range_membership
from lm_eval_calibration.metrics.uncertainty.resampling import covariance_root
from lm_eval_calibration.metrics.validation import Choices, FloatArray, IntArray

DRAWS = 1000

MORE = 5
"""Times as many draws where fewer than ENOUGH of the first are as bad as the value."""

ENOUGH = 10

CHUNK = 2**22
"""Outcomes drawn at a time: 32 MB of uniform numbers."""

ROUNDING = 1e-12
"""Differences below it are rounding."""


class Null(NamedTuple):
    """A value beside what a calibrated model would show.

    A value that is no larger than ``upper`` says nothing against calibration, whatever it is: a plug-in error is
    never 0, and at small N it is large. ``p_value`` is uniform under calibration (never too small, by the +1 of a
    Monte Carlo test).

    Attributes:
        value: The metric of these docs.
        mean: Its mean under calibration, in the metric's unit.
        upper: Its 95% quantile under calibration.
        p_value: Probability under calibration of a value as bad or worse: as high where lower is better, as low
            where higher is better, as far from 0 where the sign matters.
    """

    value: float
    mean: float
    upper: float
    p_value: float


class Together(NamedTuple):
    """Docs that hang together: which forecasts came true, [n_forecasts], and the cluster of each doc, [n_docs]."""

    outcomes: FloatArray
    cluster: IntArray


class Forecasts(NamedTuple):
    """Forecasts of which at most one a doc comes true, each with its probability; ``together`` where docs depend."""

    probs: FloatArray
    doc: IntArray
    n_docs: int
    together: Together | None = None


def too_few_to_tell(name: str, null: Null, n_docs: int) -> str | None:
    """A sentence for the log and the report where N is too small to tell an error from calibration's noise.

    name: the calibration error, as it is printed. null: its null. n_docs: number of docs.
    Returns None where the value stands out from its null: p_value below 0.05 and the null's mean less than half of the
    value.
    """
    if np.isnan(null.p_value) or (null.p_value < 0.05 and null.mean < abs(null.value) / 2):
        return None
    shown = f"{name} {null.value:.4f}"
    verdict = "is mostly noise" if null.p_value < 0.05 else "doesn't tell this model from a calibrated one"
    calibrated = f"{null.mean:.4f} on average and up to {null.upper:.4f}"
    return f"{shown} {verdict} (p = {null.p_value:.2g}): a calibrated one shows {calibrated} on {n_docs} such docs"


def null_beside(value: float, drawn: FloatArray, higher_is_better: bool | None) -> Null:
    """The draws beside the value; draws on which the metric is undefined are left out."""
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(drawn) == 0:
        nan = float("nan")
        return Null(value, nan, nan, nan)
    badness: Callable[[Any], Any] = {True: np.negative, False: np.positive, None: np.abs}[higher_is_better]
    as_bad = badness(drawn) >= badness(value) - ROUNDING
    p_value = (1 + int(np.count_nonzero(as_bad))) / (1 + len(drawn))
    return Null(value, float(drawn.mean()), float(np.quantile(drawn, 0.95)), p_value)


def null_of_draws(value: float, draw: Callable[[int], FloatArray], seed: int, higher_is_better: bool | None) -> Null:
    """The draws beside the value; where few of them are as bad, the p-value is that of five times as many.

    With 1,000 draws no p-value is below 1/1001, so that Holm's procedure over 51 tests or more could never reject. The
    p-value stays at least as large, in probability, as one that is uniform under calibration: below the limit at which
    draws were enough it is that of a fixed number of draws or larger, and above it that of the first draws.

    draw: from a seed to [draws] values under calibration; fewer than 1,000 where they take long, and then no more are.
    Source: Besag & Clifford 1991 (sequential Monte Carlo p-values), with two looks.
    """
    first = draw(seed)
    null = null_beside(value, first, higher_is_better)
    n_defined = int(np.count_nonzero(~np.isnan(first)))
    limit = ENOUGH / (1 + n_defined)
    if len(first) < DRAWS or not null.p_value <= limit:
        return null
    further = [draw(seed + (look << 64)) for look in range(1, MORE)]
    return null._replace(
        p_value=min(limit, null_beside(value, np.concatenate([first, *further]), higher_is_better).p_value)
    )


def redrawn(
    redraw: Callable[..., tuple[Any, Any]],
    statistic: Callable[..., float],
    *arrays: Any,
    seed: int,
    draws: int = DRAWS,
) -> FloatArray:
    """Any metric under calibration, computed anew on every draw of the outcomes.

    redraw: from a random generator and the checked arrays to two arrays of a calibrated model. statistic: the metric,
    a function of those two. *arrays: the checked arrays. seed: seed of ``np.random.default_rng``. draws: number of
    draws.
    """
    rng = np.random.default_rng(seed)
    return np.array([statistic(*redraw(rng, *arrays)) for _ in range(draws)], dtype=np.float64)


def redraw_correct(rng: np.random.Generator, conf: FloatArray, hit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each doc correct with the probability that its confidence says."""
    return conf, (rng.random(len(conf)) < conf).astype(np.float64)


def redraw_labels(rng: np.random.Generator, choices: Choices) -> tuple[list[FloatArray], IntArray]:
    """Each doc's label drawn from its choice probabilities."""
    rows = np.split(choices.probs, np.cumsum(choices.n_choices)[:-1])
    return rows, np.array([rng.choice(len(row), p=row / row.sum()) for row in rows])


def redraw_signs(rng: np.random.Generator, gaps: FloatArray, n: IntArray) -> tuple[FloatArray, IntArray]:
    """Each doc's gaps with a sign drawn: under calibration they have mean 0, and docs don't hang together."""
    return gaps * rng.choice([-1.0, 1.0], size=(len(gaps), 1)), n


def forecasts_of_docs(conf: FloatArray, hit: FloatArray, cluster: IntArray | None) -> Forecasts:
    """One forecast a doc: that it is correct."""
    together = None if cluster is None else Together(hit, cluster)
    return Forecasts(conf, np.arange(len(conf)), len(conf), together)


def forecasts_of_choices(choices: Choices, cluster: IntArray | None) -> Forecasts:
    """One forecast a choice: that it is the doc's label."""
    together = None if cluster is None else Together(choices.hits, cluster)
    return Forecasts(choices.probs, choices.doc, len(choices.n_choices), together)


def drawn_totals(forecasts: Forecasts, weights: Any, seed: int) -> FloatArray:
    """Sums over the forecasts that come true of their weights [n_forecasts] or [n_forecasts, F], on every draw.

    Returns [draws], or [draws, F] where the weights are a matrix, sparse or not.
    """
    matrix = csr_array(weights if weights.ndim == 2 else weights[:, None])
    draw = _normal_totals if forecasts.n_docs > resampling.EXACT_DOCS else _exact_totals
    totals = draw(forecasts, matrix, seed)
    if forecasts.together is not None:
        totals = _clustered_totals(forecasts, matrix, totals, seed)
    return totals if weights.ndim == 2 else totals[:, 0]


def drawn_gaps(forecasts: Forecasts, membership: csr_array, seed: int) -> FloatArray:
    """Sum of (outcome - forecast) in each cell on every draw, [draws, F], from the forecasts' shares of the cells."""
    return np.asarray(drawn_totals(forecasts, membership, seed) - membership.T @ forecasts.probs)


def drawn_errors(forecasts: Forecasts, membership: csr_array, seed: int) -> FloatArray:
    """Sum of the sizes of the cells' gaps on every draw, [draws]."""
    return np.asarray(np.abs(drawn_gaps(forecasts, membership, seed)).sum(axis=1))


def _exact_totals(forecasts: Forecasts, weights: csr_array, seed: int) -> FloatArray:
    rng, step = np.random.default_rng(seed), max(1, CHUNK // max(1, len(forecasts.probs)))
    chunks = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    totals: FloatArray = np.concatenate([(weights.T @ _outcomes(forecasts, rng, n)).T for n in chunks])
    return totals


def _normal_totals(forecasts: Forecasts, weights: csr_array, seed: int) -> FloatArray:
    expected = weights.multiply(forecasts.probs[:, None]).tocsr()
    ones, forecast = np.ones(len(forecasts.doc)), np.arange(len(forecasts.doc))
    of_doc = csr_array((ones, (forecasts.doc, forecast)), shape=(forecasts.n_docs, len(forecast))) @ expected
    covariance = (weights.T @ expected - of_doc.T @ of_doc).toarray()
    return np.asarray(expected.sum(axis=0) + normal_draws(covariance, seed))


def _clustered_totals(forecasts: Forecasts, weights: csr_array, alone: FloatArray, seed: int) -> FloatArray:
    """What is expected, and each cluster's departure from it with a sign drawn.

    Under calibration departures have mean 0, and those of different clusters don't hang together (the wild cluster
    bootstrap with the null imposed, Cameron, Gelbach & Miller 2008). Where rare outcomes happen not to be there they
    vary less than those of independent docs, ``alone``, would: then enough of these is added that they don't.
    """
    together = forecasts.together
    assert together is not None
    surprise = weights.multiply((together.outcomes - forecasts.probs)[:, None]).tocsr()
    of_cluster = bins_membership(together.cluster[forecasts.doc], int(together.cluster.max()) + 1).T @ surprise
    sums, expected = of_cluster.toarray(), np.asarray(weights.T @ forecasts.probs)
    variance = np.maximum(alone.var(axis=0), 1e-300)
    lacking = np.sqrt(np.maximum(0, 1 - (sums**2).sum(axis=0) / variance))
    return np.asarray(expected + signed_sums(sums, seed) + lacking * (alone - expected))


def signed_sums(rows: FloatArray, seed: int) -> FloatArray:
    """Sums [DRAWS, F] of the rows [G, F], each with a sign drawn."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(rows)))
    return np.asarray(signs @ rows)


def _outcomes(forecasts: Forecasts, rng: np.random.Generator, draws: int) -> FloatArray:
    """1 where a forecast comes true, [n_forecasts, draws]: its doc's uniform number is within its share."""
    probs, doc, n_docs, _ = forecasts
    first = np.searchsorted(doc, doc)
    reached = np.concatenate([[0.0], np.cumsum(probs)])
    start, end = reached[:-1] - reached[first], reached[1:] - reached[first]
    uniform = rng.random((n_docs, draws))
    if len(doc) == n_docs and start.max() == 0:  # one forecast a doc
        true = np.empty(uniform.shape)
        np.less(uniform, end[:, None], out=true)
        return true
    uniform = uniform[doc]
    comes_true: NDArray[np.bool_] = start[:, None] <= uniform
    comes_true &= uniform < end[:, None]
    return comes_true.astype(np.float64)


def normal_draws(covariance: FloatArray, seed: int) -> FloatArray:
    """Normal noise [DRAWS, F] with a covariance that may be singular."""
    noise = np.random.default_rng(seed).standard_normal((DRAWS, len(covariance)))
    return noise @ covariance_root(covariance)


def bins_membership(cell: IntArray, n_cells: int, scale: FloatArray | float = 1.0) -> csr_array:
    """``scale`` in the cell of each forecast, [n_forecasts, n_cells]."""
    values = np.broadcast_to(scale, len(cell))
    return csr_array((values, (np.arange(len(cell)), cell)), shape=(len(cell), n_cells))


def ranges_membership(forecasts: FloatArray, scale: FloatArray) -> csr_array:
    """Share of each forecast in each equal-mass range times the range's ``scale``, [n_forecasts, n_bins]."""
    return csr_array(np.diff(range_membership(forecasts, len(scale)), axis=1) * scale)
