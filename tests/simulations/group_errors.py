"""How often the intervals of all groups hold at once, in regimes drawn at random.

    cd tests && nice python -m simulations.group_errors [--regimes 20] [--draws 100] [--seed 1]

Prints a row a regime: how often all intervals of groups held at once, those of bins, the largest error's, and, where
no group is miscalibrated, how often some group was called over- or underconfident. At least 95% and at most 5%.
"""

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm_eval_calibration.metrics.fields import Field, Key
from lm_eval_calibration.metrics.group_errors import GroupError, GroupErrors, group_errors

TRUTH_DOCS = 100_000


@dataclass(frozen=True)
class Regime:
    """Docs with some fields, whose values differ in frequency and in how far confidence is off."""

    n_docs: int
    law: str
    shares: tuple[np.ndarray, ...]
    offsets: tuple[np.ndarray, ...]
    cluster_size: int

    def __str__(self) -> str:
        sizes = "x".join(str(len(share)) for share in self.shares)
        off = max(float(np.abs(offset).max()) for offset in self.offsets)
        return f"N={self.n_docs} {self.law} fields {sizes} off by {off:.2f} clusters of {self.cluster_size}"


class Docs(NamedTuple):
    """Docs, with the probability that each is right."""

    confidence: np.ndarray
    probability: np.ndarray
    codes: tuple[np.ndarray, ...]
    cluster: np.ndarray

    def fields(self) -> dict[str, Field]:
        names = np.array([f"v{code}" for code in range(5)])
        return {f"f{i}": Field.of(names[codes]) for i, codes in enumerate(self.codes)}


def draw_regime(rng: np.random.Generator) -> Regime:
    n_docs = int(np.exp(rng.uniform(np.log(60), np.log(4000))))
    law = str(rng.choice(["beta", "near 1", "words", "uniform"]))
    shares = tuple(rng.dirichlet(np.ones(rng.integers(2, 6))) for _ in range(rng.integers(1, 4)))
    size = float(rng.choice([0, 0.05, 0.3]))
    offsets = tuple(size * rng.uniform(-1, 1, len(share)) for share in shares)
    return Regime(n_docs, law, shares, offsets, int(rng.choice([1, 1, 3])))


def draw_docs(rng: np.random.Generator, regime: Regime, n: int) -> Docs:
    laws = {
        "beta": lambda: rng.beta(5, 2, n),
        "near 1": lambda: 1 - 10 ** -rng.uniform(1, 6, n),
        "words": lambda: rng.choice([0.5, 0.8, 0.9, 0.95, 1.0], n),
        "uniform": lambda: rng.uniform(0.25, 1, n),
    }
    confidence = laws[regime.law]()
    codes = tuple(rng.choice(len(share), n, p=share) for share in regime.shares)
    offset = sum(values[code] for values, code in zip(regime.offsets, codes, strict=True))
    probability = np.clip(confidence - offset, 0, 1)
    return Docs(confidence, probability, codes, np.arange(n) // regime.cluster_size)


def draw_answers(rng: np.random.Generator, docs: Docs, regime: Regime) -> np.ndarray:
    """Right where a number is below the probability; the docs of a cluster share half of these numbers."""
    own = rng.random(len(docs.confidence))
    shared = rng.random(docs.cluster[-1] + 1)[docs.cluster]
    is_shared = (rng.random(len(own)) < 0.5) & (regime.cluster_size > 1)
    return (np.where(is_shared, shared, own) < docs.probability).astype(int)


Truth = dict[tuple[Key, tuple[float, float] | None], float]


def true_gaps(population: Docs, fields: dict[str, Field], found: GroupErrors) -> Truth:
    gaps = population.confidence - population.probability
    known = {}
    for one in (*found.groups, *found.bins):
        member = np.all([fields[name].has(value) for name, value in one.group], axis=0)
        if one.bin is not None:
            low, high = one.bin
            member &= (population.confidence >= low) & ((population.confidence < high) | (high == 1))
        known[one.group, one.bin] = float(gaps[member].mean()) if member.any() else np.nan
    return known


def _all_hold(errors: tuple[GroupError, ...], truth: Truth) -> bool:
    known = [(truth[one.group, one.bin], one) for one in errors if not np.isnan(one.low)]
    return all(np.isnan(gap) or one.low - 1e-9 <= gap <= one.high + 1e-9 for gap, one in known)


class Row(NamedTuple):
    """Shares of draws."""

    regime: str
    groups: float
    bins: float
    largest: float
    words: float


def simulate(regime: Regime, *, draws: int, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    population = draw_docs(rng, regime, TRUTH_DOCS)
    fields = population.fields()
    truth: Truth = {}
    held = []
    for _ in range(draws):
        docs = draw_docs(rng, regime, regime.n_docs)
        cluster = docs.cluster if regime.cluster_size > 1 else None
        found = group_errors(docs.confidence, draw_answers(rng, docs, regime), docs.fields(), cluster=cluster)
        if missing := [one for one in (*found.groups, *found.bins) if (one.group, one.bin) not in truth]:
            truth |= true_gaps(population, fields, found._replace(groups=tuple(missing), bins=()))

        largest = max((abs(truth[one.group, None]) for one in found.groups), default=np.nan)
        is_in = not found.groups or found.largest.low - 1e-9 <= largest <= found.largest.high + 1e-9
        said = any(one.tendency for one in found.groups) or any(one.tendency for one in found.bins)
        held.append((_all_hold(found.groups, truth), _all_hold(found.bins, truth), is_in, said))
    is_calibrated = all(not offset.any() for offset in regime.offsets)
    groups, bins, largest, words = np.mean(held, axis=0)
    return Row(str(regime), groups, bins, largest, words if is_calibrated else np.nan)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--regimes", type=int, default=20)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, rows = np.random.default_rng(args.seed), []
    for i in range(args.regimes):
        rows.append(simulate(draw_regime(rng), draws=args.draws, seed=1000 * args.seed + i))
        print(*(f"{100 * x:6.1f}" for x in rows[-1][1:]), rows[-1].regime, flush=True)
    print("means", *(f"{100 * np.nanmean([row[k] for row in rows]):.2f}" for k in (1, 2, 3, 4)))


if __name__ == "__main__":
    main()
