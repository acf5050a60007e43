"""Whether more thinking makes a model better calibrated: its answers after the first tokens of each thought."""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.records import GenerationRecord
from lm_eval_calibration.records.clusters import as_numbers, clusters_of
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.columns import columns, metric_of
from lm_eval_calibration.results.measured import accuracy, measure


class AtBudget(NamedTuple):
    """The answers that were given after so many tokens of thought (``budget``).

    Of ``n_cut`` docs the thought was longer; of ``n_answered`` the task's filter finds an answer. ``acc`` counts those
    that are not found as wrong, as the task's metric has them. ``confidence`` is the mean of the answers that have one,
    nan where none has; ``metrics`` are of these confidences.
    """

    budget: int
    n_docs: int
    n_cut: int
    n_answered: int
    acc: Measured
    confidence: float
    metrics: dict[str, Measured]


def by_budget(run: Run) -> tuple[AtBudget, ...]:
    """Return what each budget gave over all docs; nothing where thoughts were not cut (option ``budgets``)."""
    found = [(answer, r.cluster) for r in run.records if isinstance(r, GenerationRecord) for answer in r.budgets or ()]
    rows = []
    for budget in sorted({answer.budget for answer, _ in found}):
        here = [answer for answer, _ in found if answer.budget == budget]
        known = [(a, cluster) for a, cluster in found if a.budget == budget and a.correct is not None]
        sure = [(a, cluster) for a, cluster in known if a.confidence is not None]
        outcomes, confidence = np.array([a.correct for a, _ in known]), np.array([a.confidence for a, _ in sure], float)
        arrays = confidence, np.array([a.correct for a, _ in sure], int)
        of_known, of_sure = (clusters_of(as_numbers([cluster for _, cluster in some])) for some in (known, sure))
        rows.append(
            AtBudget(
                budget,
                n_docs=len(here),
                n_cut=sum(answer.n_tokens > budget for answer in here),
                n_answered=sum(answer.outcome == "answered" for answer in here),
                acc=accuracy(outcomes, of_known),
                confidence=float(confidence.mean()) if len(confidence) else float("nan"),
                metrics={
                    name: measure(metric_of(name), arrays, run.n_bins, cluster=of_sure, with_stderr=False)
                    for name in columns("report: budgets")
                },
            )
        )
    return tuple(rows)
