"""Does a decision keep its promise? Many samples of docs from populations whose true error rates are known.

Of each regime: how often the threshold's error rate in the population is higher than promised (at most 5%, plus two
Monte Carlo errors), how often there is a threshold, and the share of questions that it answers beside what would be
possible. ``python -m simulations.decisions`` from ``tests/`` prints the table.
"""

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.decisions import Wanted
from lm_eval_calibration.decisions.decide import choose_thresholds
from lm_eval_calibration.decisions.parts import parts_of
from lm_eval_calibration.recalibration import Docs

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""Confidences of n docs, and how likely each answer is to be wrong."""


class Regime(NamedTuple):
    """A population, how many docs a run has, and what is wanted; groups are small and large where ``groups``."""

    name: str
    draw: Draw
    n_docs: int
    error_rate: float
    groups: bool = False
    cluster: int = 1


class Kept(NamedTuple):
    """What came of a regime: shares of the samples, and means over them."""

    name: str
    broken: float
    found: float
    coverage: float
    possible: float


def _beta(a: float, b: float, error: float = 1.0, shift: float = 0.0) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        confidence = rng.beta(a, b, n)
        return confidence, np.clip(error * (1 - confidence) + shift, 0, 1)

    return draw


def _near_certainty(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    confidence = 1 - 10 ** -rng.uniform(1, 6, n)
    return confidence, np.minimum(1, 3 * (1 - confidence))


def _surest_are_wrong(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    confidence = rng.beta(6, 1, n)
    return confidence, np.where(confidence > 0.995, 0.3, (1 - confidence) * 0.4)


def _in_words(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    confidence = rng.choice([0.5, 0.8, 0.9, 0.95, 1.0], n, p=[0.1, 0.2, 0.3, 0.2, 0.2])
    return confidence, 0.6 * (1 - confidence) + 0.02


def _constant(rate: float) -> Draw:
    return lambda rng, n: (rng.random(n), np.full(n, rate))


REGIMES = (
    Regime("few docs, calibrated", _beta(20, 1), 120, 0.1),
    Regime("calibrated", _beta(8, 0.5), 1000, 0.05),
    Regime("near certainty, overconfident", _near_certainty, 600, 0.02),
    Regime("overconfident", _beta(8, 0.5, error=2.0), 2000, 0.05),
    Regime("lower accuracy", _beta(6, 1, shift=0.05), 2000, 0.15),
    Regime("the surest are wrong", _surest_are_wrong, 1500, 0.05),
    Regime("five words", _in_words, 800, 0.06),
    Regime("just above the rate, no discrimination", _constant(0.0501), 3000, 0.05),
    Regime("groups of 10% and 90%", _beta(8, 0.5), 3000, 0.05, groups=True),
    Regime("clusters of 5, all right or all wrong", _beta(12, 0.5), 3000, 0.1, cluster=5),
)


def keeps(regime: Regime, draws: int, seed: int = 0) -> Kept:
    """Decide on ``draws`` samples of a regime and look at the truth."""
    rng = np.random.default_rng(seed)
    risk, share, possible = _truth(regime)
    broken, coverages = 0, []
    for _ in range(draws):
        docs = _sample(regime, rng)
        thresholds = choose_thresholds(docs, parts_of(docs), Wanted(regime.error_rate))
        values = [threshold.value for threshold in thresholds.values()]
        found = [value for value in values if value is not None]
        broken += any(risk(value) > regime.error_rate for value in found)
        coverages.append(float(np.mean([0 if value is None else share(value) for value in values])))
    return Kept(
        regime.name, broken / draws, float(np.mean(np.array(coverages) > 0)), float(np.mean(coverages)), possible
    )


def allowed(draws: int) -> float:
    """5% and two Monte Carlo errors."""
    return 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)


def _sample(regime: Regime, rng: np.random.Generator) -> Docs:
    """Docs with answers that are wrong as likely as the population's; those of a cluster share confidence and fate."""
    n_clusters = regime.n_docs // regime.cluster
    confidence, rate = regime.draw(rng, n_clusters)
    wrong = rng.random(n_clusters) < rate
    cluster = np.repeat(np.arange(n_clusters), regime.cluster)
    names = rng.integers(0, 2**62, regime.n_docs).astype(np.str_)
    groups = np.where(rng.random(regime.n_docs) < 0.1, "small", "large") if regime.groups else None
    ids = (cluster + 1).astype(np.uint64) if regime.cluster > 1 else None
    return Docs.of_answers(confidence[cluster], ~wrong[cluster], names.tolist(), groups, ids)


def _truth(regime: Regime) -> tuple[Callable[[float], float], Callable[[float], float], float]:
    """Error rate and coverage of a threshold in the population (2,000,000 docs), and the largest coverage possible."""
    confidence, rate = regime.draw(np.random.default_rng(12345), 2_000_000)
    order = np.argsort(-confidence)
    falling = -confidence[order]
    mean = np.cumsum(rate[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(falling[1:] > falling[:-1], True)

    def n_answered(threshold: float) -> int:
        return int(np.searchsorted(falling, -threshold, side="right"))

    def risk(threshold: float) -> float:
        n = n_answered(threshold)
        return float(mean[n - 1]) if n else 0.0

    good = np.flatnonzero((mean <= regime.error_rate) & last_of_ties)
    possible = float((good[-1] + 1) / len(order)) if good.size else 0.0
    return risk, lambda threshold: n_answered(threshold) / len(order), possible


def main(draws: int) -> None:
    """Print the table."""
    print(f"{'regime':42} {'broken':>7} {'found':>7} {'answers':>8} {'possible':>8}   (allowed: {allowed(draws):.4f})")
    for index, regime in enumerate(REGIMES):
        kept = keeps(regime, draws, seed=index)
        print(
            f"{kept.name:42} {kept.broken:7.4f} {kept.found:7.3f} {kept.coverage:8.3f} {kept.possible:8.3f}", flush=True
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
