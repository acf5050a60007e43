"""How often cross-fitting says "better" or "worse", and how often that is false.

    cd tests && nice python -m simulations.cross_fitting [--samples 100] [--shape calibrated]

A sample of each of many regimes that are drawn at random (``regimes.py``, 50 to 2,000 docs), recalibrated by each
method in five folds. The truth is that of the folds' own maps on many other docs of the population, so "worse" of a map
that was overfitted is true, and "better" of calibrated docs never is. Prints for each method and metric how often
each word is said, how often it is false, and how often the interval holds the truth, beside the same for intervals that
hold the maps fixed. ``--shape temperature 2`` shows the power: softmax of logits twice as large as they should be.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import softmax
from simulations.regimes import Docs as Population
from simulations.regimes import Sample, draw_docs, draw_regime, draw_sample
from simulations.truth import true_values

from lm_eval_calibration.metrics.comparison import comparable
from lm_eval_calibration.recalibration import METHODS, Change, CrossFit, Docs, before_after, cross_fit
from lm_eval_calibration.recalibration import cross_fitted_changes as changes_of

NAMES = ("brier_score", "nll", "ace", "ece", "brier_top_label", "overconfidence", "confident_error_rate", "skill_score")
POPULATION = 8_000


class Said(NamedTuple):
    """One metric of one recalibrated sample: the word, whether it is false, whether the interval holds the truth."""

    word: str
    is_false: bool
    holds: bool


def docs_of_sample(sample: Sample) -> Docs:
    """Docs as recalibration takes them."""
    hashes = [str(i) for i in range(len(sample.docs.cluster))]
    if sample.docs.probs is None:
        return Docs.of_answers(sample.docs.confidence[0], sample.correct[0], hashes)
    with np.errstate(divide="ignore"):
        return Docs.of(np.log(sample.docs.probs[0]), sample.labels, hashes)


def temperature_2(rng: np.random.Generator, n_docs: int) -> Sample:
    """Docs of four choices whose logits are twice as large as they should be."""
    logits = rng.normal(0, 2.5, (n_docs, 4))
    probs, true = softmax(logits, axis=1), softmax(logits / 2, axis=1)
    labels = np.minimum((rng.random((n_docs, 1)) > np.cumsum(true, axis=1)).sum(axis=1), 3)
    top, rows = probs.argmax(axis=1), np.arange(n_docs)
    both = np.stack([probs, probs])
    docs = Population(both.max(axis=2), np.stack([true[rows, top]] * 2), rows, both, true)
    return Sample(docs, np.stack([top == labels] * 2), labels)


def samples(shape: str, n: int, n_docs: int, seed: int) -> Iterator[tuple[Sample, Population]]:
    """A sample of each of n regimes, and its population."""
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        if shape == "temperature 2":
            yield temperature_2(rng, n_docs), temperature_2(rng, POPULATION).docs
            continue
        regime = draw_regime(rng, n_min=50, n_max=2000)._replace(shape=shape)
        yield draw_sample(rng, regime), draw_docs(rng, regime, POPULATION)


def true_changes(crossed: CrossFit, population: Population) -> dict[str, tuple[float, float]]:
    """Of each metric the true value before and the mean over the maps of that after (of overconfidence, its size)."""
    labels = None if population.probs is None else np.zeros(POPULATION, dtype=int)
    docs = docs_of_sample(Sample(population, np.zeros((2, POPULATION)), labels))
    after = []
    for fitted in crossed.maps.values():
        forecasts = fitted.forecasts(docs)
        probs = None if forecasts.probs is None else np.stack([forecasts.probs] * 2)
        after.append(true_values(population._replace(confidence=np.stack([forecasts.confidence] * 2), probs=probs)))
    before = true_values(population)
    return {name: (before[name], float(np.mean([one[name] for one in after]))) for name in after[0] if name in NAMES}


def judged(change: Change, before: float, after: float) -> Said:
    """Whether a word is false of the true change."""
    sizes = (abs(before), abs(after)) if change.higher_is_better is None else (before, after)
    is_better = sizes[1] > sizes[0] if change.higher_is_better else sizes[1] < sizes[0]
    is_false = (change.verdict == "better" and not is_better) or (change.verdict == "worse" and is_better)
    return Said(change.verdict, is_false, change.low - 1e-9 <= after - before <= change.high + 1e-9)


def simulate(sample: Sample, population: Population, method: str) -> Iterator[tuple[str, Said, Said]]:
    """Name, what is said with the maps held fixed, and what is said."""
    docs = docs_of_sample(sample)
    if METHODS[method].takes == "choices" and docs.confidence is not None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crossed = cross_fit(method, docs)
        truth = true_changes(crossed, population)
        after = crossed.forecasts.run
        names = [name for name in NAMES if name in truth and name in comparable(after, after)]
        fixed = before_after(docs.forecasts, crossed.forecasts, names=names)
        found = changes_of(method, docs, crossed, names=names)
    for one, other in zip(fixed[1:], found[1:], strict=True):
        if not np.isnan([one.low, other.low, *truth[one.name]]).any():
            yield one.name, judged(one, *truth[one.name]), judged(other, *truth[one.name])


def main() -> None:
    """Print a row for each method and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--shape", default="calibrated")
    parser.add_argument("--docs", type=int, default=500, help="of each sample of --shape 'temperature 2'")
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != "beta"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: dict[tuple[str, str], list[tuple[Said, Said]]] = defaultdict(list)
    for sample, population in samples(options.shape, options.samples, options.docs, options.seed):
        for method in options.methods:
            for name, one, other in simulate(sample, population, method):
                rows[method, name].append((one, other))
    print("| method | metric | samples | maps fixed: better, worse, false, held | better, worse, false, held |")
    print("|---|---|---|---|---|")
    for (method, name), said in rows.items():
        cells = [_shares([pair[i] for pair in said]) for i in (0, 1)]
        print(f"| {method} | {name} | {len(said)} | {' | '.join(cells)} |")


def _shares(said: list[Said]) -> str:
    columns = ([s.word == "better" for s in said], [s.word == "worse" for s in said])
    return ", ".join(f"{100 * np.mean(c):.1f}" for c in (*columns, [s.is_false for s in said], [s.holds for s in said]))


if __name__ == "__main__":
    main()
