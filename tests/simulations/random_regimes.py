"""How often intervals hold the truth in regimes that are drawn at random (``regimes.py``), and how wide they are.

    cd tests && nice python -m simulations.random_regimes [--regimes 40] [--draws 200] [--largest 2000] [--clustered]

Prints a row for each metric: median coverage over the regimes, the share of regimes with at least 93% and with at
least 90%, the lowest coverage, the median width, and how often an interval is not shown. Then the ten regimes in
which any interval holds the truth least often. Intervals that are not shown (nan) count neither way; a regime counts
for a metric where at least 20 draws have one. Names with " b-a" are paired differences of two runs; "null of" is how
often calibrated regimes pass their null at 5%. ``--save FILE`` keeps every row, for a comparison of two versions;
``--picture FILE`` draws coverage and width of each metric, a point a regime.
"""

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simulations.regimes import Regime, Sample, draw_docs, draw_regime, draw_sample
from simulations.truth import true_values

from lm_eval_calibration import metrics

TOP_LABEL = ("acc", "ece", "brier_top_label", "overconfidence", "auroc", "confident_error_rate")
AREAS = ("skill_score", "aurc", "auprc")
OF_CHOICES = ("brier_score", "nll", "ace", "full_ece")
COMPARED = ("acc", "ece", "overconfidence", "brier_top_label", "brier_score", "nll", "auroc")
NULLS = ("ece", "overconfidence")
TRUTH_DOCS = 200_000
ENOUGH = 20
"""Intervals that must be shown before a regime counts."""


class Row(NamedTuple):
    """One metric in one regime."""

    regime: str
    metric: str
    coverage: float
    width: float
    shown: float


def simulate(regime: Regime, *, draws: int, seed: int, only: Sequence[str] = ()) -> list[Row]:
    """Coverage and median width of the interval of every metric, or of these."""
    rng = np.random.default_rng(seed)
    population = draw_docs(rng, regime, TRUTH_DOCS)
    truth, other = true_values(population), true_values(population, run=1)
    truth |= {f"{name} b-a": other[name] - truth[name] for name in truth}
    ends: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(draws):
            for name, low, high in _intervals(draw_sample(rng, regime), regime, only):
                ends[name].append((low, high))
    return [row for name, pairs in ends.items() if (row := _row(str(regime), name, np.array(pairs), truth)) is not None]


def _row(regime: str, name: str, ends: np.ndarray, truth: dict[str, float]) -> Row | None:
    if name.startswith("null of"):
        return Row(regime, name, float(np.mean(ends[:, 0] > 0.05)), 0.0, 1.0)
    value, shown = truth[name], ~np.isnan(ends[:, 0])
    if np.isnan(value) or np.isinf(value):
        return None
    low, high = ends[shown].T
    held = (low - 1e-9 <= value) & (value <= high + 1e-9)
    coverage, width = (held.mean(), np.median(high - low)) if len(held) >= ENOUGH else (np.nan, np.nan)
    return Row(regime, name, float(coverage), float(width), float(shown.mean()))


def _intervals(sample: Sample, regime: Regime, only: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Name and ends of every interval of a sample; of a null its p-value."""
    one, other = _runs(sample)
    options = {"cluster": sample.docs.cluster} if regime.n_clusters else {}
    names = [*TOP_LABEL, *AREAS, *(OF_CHOICES if one.probs is not None else ())]
    for name in (name for name in names if not only or name in only):
        metric = metrics.COMPARED[name]
        yield name, *metric.interval(*(getattr(one, field) for field in metrics.RUN_FIELDS[metric.kind]), **options)
    compared = [name for name in COMPARED if name in names and (not only or name in only)]
    alike = regime.noise == 0 and one.probs is not None  # by construction
    for name, found in metrics.compare(one, other, names=compared, **options, same_answers=alike).items():
        yield f"{name} b-a", found.low, found.high
    if regime.shape == "calibrated":
        for name in (name for name in NULLS if not only or name in only):
            null = metrics.COMPARED[name].null
            assert null is not None
            yield f"null of {name}", null(one.confidence, one.correct, **options).p_value, 0.0


def _runs(sample: Sample) -> tuple[metrics.Run, metrics.Run]:
    docs = sample.docs
    runs = []
    for run in (0, 1):
        arrays = {"confidence": docs.confidence[run], "correct": sample.correct[run]}
        if docs.probs is not None:
            arrays |= {"probs": docs.probs[run], "labels": sample.labels}
            if run == 0:
                gap_sums = metrics.position_gap_sums(docs.probs[run], sample.labels)
                arrays |= {"gap_sums": gap_sums, "n_positions": np.ones(len(gap_sums), dtype=int)}
        runs.append(metrics.Run(**arrays))
    return runs[0], runs[1]


def print_table(rows: Sequence[Row]) -> None:
    """A row for each metric over all regimes."""
    print("| metric | median | >= 93% | >= 90% | lowest | median width | not shown |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row.metric for row in rows):
        mine = [row for row in rows if row.metric == name]
        coverage = np.array([row.coverage for row in mine if not np.isnan(row.coverage)])
        if not len(coverage):
            continue
        shares = [100 * float(np.median(coverage)), *(100 * float(np.mean(coverage >= x)) for x in (0.93, 0.9))]
        width = np.nanmedian([row.width for row in mine])
        hidden = 100 * (1 - np.mean([row.shown for row in mine]))
        cells = [*(f"{x:.1f}" for x in (*shares, 100 * coverage.min())), f"{width:.4f}", f"{hidden:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def print_worst(rows: Sequence[Row], n: int = 10) -> None:
    """The regimes and metrics with the least coverage."""
    print(f"\nThe {n} worst:")
    defined = [row for row in rows if not np.isnan(row.coverage)]
    for row in sorted(defined, key=lambda row: row.coverage)[:n]:
        print(f"  {100 * row.coverage:5.1f}%  {row.metric}: {row.regime} (width {row.width:.4f})")


def draw_picture(rows: Sequence[Row], path: Path) -> None:
    """A row of points for each metric: coverage of each regime on the left, width on the right."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.metric for row in rows if not row.metric.startswith("null of")))
    figure = Figure(figsize=(11, 1 + 0.35 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for y, name in enumerate(names):
        mine = [row for row in rows if row.metric == name and not np.isnan(row.coverage)]
        heights = y + np.linspace(-0.25, 0.25, len(mine))
        left.scatter([100 * row.coverage for row in mine], heights, s=9, alpha=0.6)
        right.scatter([row.width for row in mine], heights, s=9, alpha=0.6)
    for level, style in ((95, "-"), (93, "--"), (90, ":")):
        left.axvline(level, color="grey", linestyle=style, linewidth=0.8)
    left.set(
        yticks=range(len(names)), yticklabels=names, xlabel="coverage, %: one point a regime", ylim=(len(names), -1)
    )
    right.set(xscale="log", xlabel="median width of the interval")
    figure.savefig(path)


def main() -> None:
    """Draw the regimes and print what comes of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", type=int, default=40)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--smallest", type=int, default=20)
    parser.add_argument("--largest", type=int, default=2000)
    parser.add_argument("--clustered", action="store_true")
    parser.add_argument("--only", nargs="+", default=(), metavar="METRIC")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    for i in range(options.regimes):
        rng = np.random.default_rng([options.seed, i])
        regime = draw_regime(rng, n_min=options.smallest, n_max=options.largest, clustered=options.clustered)
        rows += simulate(regime, draws=options.draws, seed=i, only=options.only)
        if options.save:
            options.save.write_text(json.dumps(rows))
    print_table(rows)
    print_worst(rows)
    if options.picture:
        draw_picture(rows, options.picture)


if __name__ == "__main__":
    main()
