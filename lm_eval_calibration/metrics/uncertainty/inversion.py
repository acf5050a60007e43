"""Intervals of calibration errors: which errors are compatible with the one that was observed?

A plug-in error theta = |mu_1| + ... + |mu_F| is biased upward where gaps are near 0, so neither a bootstrap's
percentiles nor plug-in +- 1.96 standard errors hold their level. Here a value theta_0 belongs to the interval
unless the observed error would be among the largest or smallest that a population with error theta_0 shows:
the test's distribution has the bias in it, and at theta_0 = 0 the test is the null test of calibration.

Many gap vectors have error theta_0. The one that is most likely given the observed gaps stands for them: it
takes the same multiple of its variance off every gap, mu_f = sign(g_f) max(|g_f| - lambda s_f^2, 0) (exact
for independent gaps), so small gaps vanish on the way to 0; for sqrt(mu_1^2 + ... + mu_F^2) the gaps keep their
proportion. Its noise is normal with the docs' covariance.
Because that vector is estimated, the tests are made a little stricter than the level asks for
(``STRICTNESS``), which the coverage simulation in ``tests/simulations`` was used to choose.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import erf

from lm_eval_calibration.metrics.uncertainty.clusters import degrees_of_freedom, z_quantile
from lm_eval_calibration.metrics.uncertainty.gap_vectors import GapVector
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate, too_few_docs, undefined_estimate
from lm_eval_calibration.metrics.uncertainty.nulls import DRAWS as NULL_DRAWS
from lm_eval_calibration.metrics.uncertainty.nulls import ROUNDING
from lm_eval_calibration.metrics.uncertainty.resampling import covariance_root
from lm_eval_calibration.metrics.validation import FloatArray, IntArray

DRAWS = 2000
"""Draws of the noise, the same ones for every theta_0."""

STRICTNESS = 0.6
"""Share of 1 - level that both tails together get. At 1 coverage was 92 to 98% in the simulations that chose it,
and intervals a tenth narrower."""

STEPS = 36
"""Halvings of the search."""

NEARLY_NORMAL = 200
"""Degrees of freedom from which Student's t is taken to be normal."""

NEVER = 1e-18
"""Probability of drawing what is taken to be never drawn."""

Norm = Literal["sum", "root"]


def inverted_tests(
    gaps: Callable[..., GapVector],
    norm: Norm = "sum",
    *,
    largest: float = 1.0,
    null: Callable[..., FloatArray] | None = None,
    refuse: Callable[..., str | None] | None = None,
    per_doc: Callable[..., int] | None = None,
) -> Callable[..., Estimate]:
    """The :func:`error_estimate` of the gaps, as a function of the arrays and options of which these are one.

    ``null``: the metric's own, from the same arrays. Where it does not reject calibration at half of 1 - level, the
    interval begins at 0: with few docs or rare errors its outcomes are drawn exactly, where the gaps' noise is only
    near to normal.

    ``refuse``: why these arrays have no interval; None where they have one.

    ``per_doc``: how many forecasts, from the arrays, a doc has at most, of which one comes true and each has all of its
    mass in cells; 0 where that is not so. Then an error far above what calibration shows is told without drawing.
    """

    def estimate(*arrays: Any, level: float, seed: int, cluster: IntArray | None = None, **options: Any) -> Estimate:
        if refuse is not None and (reason := refuse(*arrays)):
            return undefined_estimate(len(arrays[0]), reason)
        vector = gaps(*arrays, **options)
        found = error_estimate(vector, norm, level=level, seed=seed, largest=largest, cluster=cluster)
        if null is None or not found.low > 0:
            return found
        observed = float(_SIZES[norm](vector.gaps))
        together = per_doc(*arrays) if per_doc is not None and cluster is None else 0
        if together and _is_beyond_null(observed, vector, together, level):
            return found
        drawn = null(*arrays, seed=seed, **options, **({} if cluster is None else {"cluster": cluster}))
        as_bad = (1 + np.count_nonzero(drawn >= observed - ROUNDING)) / (1 + len(drawn))
        return found._replace(low=0.0) if as_bad > (1 - level) / 2 else found

    return estimate


def one_forecast(*_: Any) -> int:
    """What ``per_doc`` is of metrics of answers: that the answer is right is the doc's only forecast."""
    return 1


def _is_beyond_null(observed: float, vector: GapVector, per_doc: int, level: float) -> bool:
    """Whether so few draws of the null are as large as the observed error that they can't be enough not to reject.

    A calibrated error Z is a supremum of sums over independent docs, over all signs of the gaps, so that
    P(Z >= E Z + U x) <= exp(-x^2 / (2 v + 3 x)) with U what one doc adds at most, v = V / U^2 + 2 E Z / U, and V the
    largest variance of such a sum. Enough draws are beyond with probability below ``NEVER``, by Chernoff's bound.

    Source: Klein & Rio 2005, theorem 1.1.
    """
    variance = vector.counts.n * vector.calibrated_variance
    expected, most = float(np.sqrt(variance).sum()), 2 * float(vector.counts.scale.max())
    enough = math.floor((1 + NULL_DRAWS) * (1 - level) / 2 - 1) + 1
    if enough < 1:
        return False
    limit = math.log(math.e * NULL_DRAWS / enough) - math.log(NEVER) / enough
    spread = per_doc * float(variance.sum()) / most**2 + 2 * expected / most
    return observed - ROUNDING > expected + most * (3 * limit + math.sqrt(9 * limit**2 + 8 * spread * limit)) / 2


def error_estimate(
    vector: GapVector,
    norm: Norm,
    *,
    level: float,
    seed: int,
    largest: float = 1.0,
    cluster: IntArray | None = None,
) -> Estimate:
    """Estimate, interval and influence of the norm of a gap vector: sum |g_f|, or sqrt(sum g_f^2).

    vector: the gaps; two docs at least, else nan. norm: "sum" or "root". level: level of the interval. seed: seed
    of ``np.random.default_rng``. largest: greatest possible value of the error. cluster: [N] clusters of the docs.
    """
    gaps, influence = vector.gaps, vector.influence
    if reason := too_few_docs(len(influence)):
        return undefined_estimate(len(influence), reason)
    covariance = vector.covariance(cluster)
    variance = np.diag(covariance)
    noise = _draw(covariance, seed, degrees_of_freedom(len(influence), cluster))
    size = _SIZES[norm]
    path = _thresholded(np.abs(gaps), variance) if norm == "sum" else _scaled(np.abs(gaps), variance)
    ends = _invert(float(size(gaps)), path, np.where(gaps < 0, -noise, noise), size, 1 - level)
    low, value, high = _widened(ends, vector, variance, level, cluster)
    direction = _soft_sign(gaps, variance) if norm == "sum" else gaps / max(float(size(gaps)), 1e-300)
    return Estimate(min(value, largest), low, min(high, largest), influence @ direction)


def _widened(
    ends: tuple[float, float, float], vector: GapVector, variance: FloatArray, level: float, cluster: IntArray | None
) -> tuple[float, float, float]:
    """The ends, farther off by what the cells' binomial intervals allow beyond normal noise.

    Matters where a cell's outcomes are all alike or nearly: normal noise has almost no variance there. By MOVER: the
    squares of what cells allow add up.
    """
    low, value, high = ends
    effective = 1.0
    if cluster is not None:
        effective = min(1.0, float(np.trace(vector.covariance()) / max(float(variance.sum()), 1e-300)))
    size, noise = np.abs(vector.gaps), z_quantile(level) ** 2 * variance
    nearest, farthest = vector.counts.reach(vector.gaps, level, effective)
    beyond = float(np.sum(np.maximum((farthest - size) ** 2 - noise, 0)))
    within = float(np.sum(np.maximum((size - nearest) ** 2 - np.minimum(noise, size**2), 0)))
    return (
        max(0.0, value - float(np.sqrt((value - low) ** 2 + within))),
        value,
        value + float(np.sqrt((high - value) ** 2 + beyond)),
    )


def _sum(gaps: FloatArray) -> FloatArray:
    return np.asarray(np.abs(gaps).sum(axis=-1))


def _root(gaps: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((gaps**2).sum(axis=-1)))


_SIZES: dict[Norm, Callable[[FloatArray], FloatArray]] = {"sum": _sum, "root": _root}


class _Path(NamedTuple):
    """Gap vectors of growing error: ``at(t)`` for t in [0, end], at(0) = 0, at(1) the observed gaps."""

    at: Callable[[float], FloatArray]
    end: float


def _thresholded(gaps: FloatArray, variance: FloatArray) -> _Path:
    """Most likely gaps (>= 0) with a given sum of sizes: each moved by the same multiple of its variance."""
    live = variance > 0
    if not live.any():
        return _Path(lambda t: t * gaps, 1.0)
    top = float(np.max(gaps[live] / variance[live])) or 1.0
    reach = 12 / (top * float(np.sqrt(variance.max())))  # 12 standard errors beyond the observed gaps
    return _Path(lambda t: np.where(live, np.maximum(gaps - (1 - t) * top * variance, 0), gaps), 1 + reach)


def _scaled(gaps: FloatArray, variance: FloatArray) -> _Path:
    """Gaps in the observed proportion; in that of their standard errors where none was observed."""
    shape = gaps if gaps.any() else np.sqrt(variance)
    noise = float(np.sqrt(variance.sum()))
    return _Path(lambda t: t * shape, 1 + 12 * noise / max(float(_root(shape)), 1e-300))


def _invert(
    observed: float, path: _Path, noise: FloatArray, size: Callable[[FloatArray], FloatArray], alpha: float
) -> tuple[float, float, float]:
    """Errors along the path that the observed one does not refute, each tail with STRICTNESS alpha / 2.

    Between the ends the error of which the observed one is the median, 0 where even calibration shows larger
    ones as a rule. The observed error itself always lies between the ends. One that is smaller than what
    calibration shows as a rule was lucky: the upper end takes it for calibration's median (a power-constrained
    limit, Cowan et al. 2011, arXiv:1105.3166), else a coincidence would make an interval of width 0.
    """
    tail, slack = STRICTNESS * alpha / 2, 1e-12 * max(1.0, observed)
    usual = float(np.median(size(path.at(0.0) + noise)))
    draws = _Draws(path, noise, size)
    n = len(noise)
    low = draws.error_at(lambda n_below: (n - n_below) / n <= tail, np.nextafter(observed - slack, -np.inf))
    value = draws.error_at(lambda n_below: n_below / n > 0.5, observed + slack)
    high = draws.error_at(lambda n_below: n_below / n > tail, max(observed, usual) + slack)
    low, high = min(low, observed), max(high, observed)
    return low, float(np.clip(value, low, high)), high


class _Draws(NamedTuple):
    """Errors that populations along a path show: the size of their gaps and noise, [DRAWS, F]."""

    path: _Path
    noise: FloatArray
    size: Callable[[FloatArray], FloatArray]

    def error_at(self, holds: Callable[[int], bool], bound: float) -> float:
        """Error of the last population for which the number of draws up to a bound holds; 0 where not the first's does.

        By halving. A draw that no population between the two ends takes across the bound is counted and looked at no
        more: between two populations its error changes by the size of the difference of their gaps at most.
        """
        inside, outside, near, n_below = 0.0, self.path.end, self.noise, 0
        if not holds(int(np.count_nonzero(self.size(self.path.at(0.0) + near) <= bound))):
            return 0.0
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            gaps = self.path.at(middle)
            sizes = self.size(gaps + near)
            is_below = sizes <= bound
            is_inside = holds(n_below + int(np.count_nonzero(is_below)))
            inside, outside = (middle, outside) if is_inside else (inside, middle)
            most = self.size(self.path.at(outside if is_inside else inside) - gaps)
            is_near = np.abs(sizes - bound) <= 1.001 * most + 1e-12
            n_below += int(np.count_nonzero(is_below & ~is_near))
            near = near[is_near]
        return float(self.size(self.path.at(outside)))


def _draw(covariance: FloatArray, seed: int, freedom: float) -> FloatArray:
    """Noise [DRAWS, F] in pairs of opposite sign, with a covariance that may be singular.

    Normal where there are many degrees of freedom, else Student's t.
    """
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((DRAWS // 2, len(covariance))) @ covariance_root(covariance)
    if freedom < NEARLY_NORMAL:
        half *= np.sqrt(freedom / rng.chisquare(freedom, size=(DRAWS // 2, 1)))
    return np.concatenate([half, -half])


def _soft_sign(gaps: FloatArray, variance: FloatArray) -> FloatArray:
    """Expected sign of each population gap: towards 0 where the gap is within its noise."""
    return np.asarray(erf(gaps / np.sqrt(2 * np.maximum(variance, 1e-300))))
