"""The metrics of the table for generated answers.

``<metric>_self_consistency`` takes the share of the most frequent of several answers for confidence, and whether that
answer is right.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.harness.log import warn_once
from lm_eval_calibration.harness.pools import DocPool, Statistic
from lm_eval_calibration.metrics import GENERATION_CATALOG
from lm_eval_calibration.records import AnswerRecord, GenerationRecord, Record, ScoredAnswer, ordered
from lm_eval_calibration.tasks.options import Options
from lm_eval_calibration.tasks.views import ASKED, TableMetric, asked_rows, trust_rows, trust_suffixes

SELF_CONSISTENCY = "_self_consistency"

SELF_CONSISTENCY_CORE = ("brier_top_label", "ece", "ace", "auroc")
"""Metrics that several samples add, beside ``acc_self_consistency``."""

SAMPLED_ACC = f"acc{SELF_CONSISTENCY}"

TOKEN_ACCURACY = "token_accuracy"


def self_consistent(records: Sequence[Record]) -> Iterable[ScoredAnswer]:
    """Return the docs as their samples answer them."""
    return (record.self_consistent() for record in records if isinstance(record, GenerationRecord))


GENERATION_TABLE = {
    **{name: TableMetric(metric) for name, metric in GENERATION_CATALOG.items()},
    **trust_rows(GENERATION_CATALOG),
    **{
        f"{name}{SELF_CONSISTENCY}": TableMetric(replace(metric, name=f"{name}{SELF_CONSISTENCY}"), self_consistent)
        for name, metric in GENERATION_CATALOG.items()
        if metric.kind == "top_label"
    },
    **ASKED,
}
"""Every metric of confidence that the table of a generation task can show, by name."""


def with_rows(names: Iterable[str], options: Options) -> list[str]:
    """Return the metrics, and after them the rows beside them that the options ask for."""
    plain = list(names)
    trust = [name + suffix for suffix in trust_suffixes(options) for name in plain if name + suffix in GENERATION_TABLE]
    of_samples = [f"{name}{SELF_CONSISTENCY}" for name in plain if name in SELF_CONSISTENCY_CORE]
    return [*plain, *trust, *asked_rows(plain, options), *(of_samples if options.repeats > 1 else ())]


def token_hits(record: AnswerRecord) -> tuple[int, int]:
    """Return how many of the reference's tokens are the most probable ones at their positions, and how many there are.

    A token is told by its probability; where no entry reaches the least probability that is recorded, it counts as a
    miss.
    """
    probs = np.exp(record.log_probs or ())
    large = record.large_probs or ()
    hits = [bool(at) and p >= max(at) for p, at in zip(probs.tolist(), large, strict=True)]
    return sum(hits), len(hits)


@dataclass(frozen=True)
class TokenAccuracy(Statistic):
    """Share of all reference tokens that are the most probable ones."""

    def value(self, pool: DocPool) -> float:
        """Return the share over the records, ``nan`` where there is no token."""
        return self._compute(metrics.token_accuracy, pool)

    def stderr(self, pool: DocPool) -> float:
        """Return its standard error, a bootstrap over docs."""
        return self._compute(metrics.token_accuracy_stderr, pool)

    def _compute(self, function: Callable[..., float], pool: DocPool) -> float:
        counts = [token_hits(r) for r in ordered(pool.records) if isinstance(r, AnswerRecord) and r.log_probs]
        if not counts:
            warn_once(f"{pool.tasks}: {TOKEN_ACCURACY} is undefined: no doc has a token of a reference answer")
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one doc alone has no error
            return float(function(*np.transpose(counts)))
