"""How often the drift gate alarms: when nothing changed, at a change of just the tolerance, and beyond it.

A model says c and is right with probability c - delta; ece, overconfidence and the change of both are then known. The
new run answers the same docs (paired: the same luck in nine of ten docs) or others. Beside the gate's rule stands what
it is not: an alarm wherever the point estimate is beyond the tolerance and the change is significant by itself.

``OMP_NUM_THREADS=1 python tests/simulations/drift_gate.py [REPETITIONS]``
"""

import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.reports.drift.gate import gate
from lm_eval_calibration.results import Difference, RunComparison, TaskComparison

NAMES = ("acc", "ece", "auroc", "brier_top_label")
TOLERANCE = 0.02
BASE = 0.05
"""Overconfidence of the base model."""


class Rates(NamedTuple):
    """Shares of repetitions with an alarm: of any metric, of ece, and of ece by the naive rule."""

    any_alarm: float
    ece: float
    naive_ece: float


def answers(n_docs: int, worse: float, paired: bool, rng: np.random.Generator) -> tuple[metrics.Run, metrics.Run]:
    """A base run and a new one whose overconfidence is larger by ``worse``."""
    conf, luck = rng.uniform(0.4, 1, n_docs), rng.random(n_docs)
    base = metrics.Run(confidence=conf, correct=(luck < conf - BASE).astype(int))
    if paired:
        luck = np.where(rng.random(n_docs) < 0.9, luck, rng.random(n_docs))
    else:
        conf, luck = rng.uniform(0.4, 1, n_docs), rng.random(n_docs)
    return base, metrics.Run(confidence=conf, correct=(luck < conf - BASE - worse).astype(int))


def alarms(n_docs: int, worse: float, paired: bool, repetitions: int) -> Rates:
    """Run the gate on simulated runs. Accuracy falls as much as ece grows, the other metrics get worse by less."""
    tolerances = dict.fromkeys(NAMES, TOLERANCE)
    found = np.array([list(_alarms(n_docs, worse, paired, seed, tolerances)) for seed in range(repetitions)])
    return Rates(*found.mean(axis=0).tolist())


def _alarms(n_docs: int, worse: float, paired: bool, seed: int, tolerances: dict[str, float]) -> Iterator[bool]:
    base, new = answers(n_docs, worse, paired, np.random.default_rng([seed, n_docs]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        compared = metrics.compare(base, new, names=NAMES, paired=paired)
    differences = {name: Difference(name, *found, found.p_value, 1, "") for name, found in compared.items()}
    scope = TaskComparison("task", paired, n_docs, n_docs, 0, 0, 0, 0, differences)
    tests = gate(RunComparison((scope,), scope, (), (), (), 10, 0.95), tolerances)
    yield any(test.verdict == "drifted" for test in tests)
    yield any(test.verdict == "drifted" and test.metric == "ece" for test in tests)
    ece = compared["ece"]
    yield ece.difference > TOLERANCE and ece.p_value < 0.05


def main() -> None:
    """Print the table of the README."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"{repetitions} repetitions; tolerance {TOLERANCE}; share with an alarm, %")
    print("docs\tpairs\ttrue change\tany metric\tece\tece, naive rule")
    for n_docs in (500, 2000):
        for paired in (True, False):
            for worse in (0.0, TOLERANCE, 0.08):
                rates = alarms(n_docs, worse, paired, repetitions)
                print(n_docs, paired, worse, *(f"{100 * rate:.1f}" for rate in rates), sep="\t", flush=True)


if __name__ == "__main__":
    main()
