"""Whether more thinking makes a model better calibrated: its answers after the first tokens of each thought."""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.records import GenerationRecord
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.columns import columns, metric_of
from lm_eval_calibration.results.measured import accuracy, measure


class AtBudget(NamedTuple):
    """The answers that were given after so many tokens of thought.

    Attributes:
        budget: tokens.
        n_docs: docs.
        n_cut: docs whose thought was longer.
        n_answered: docs whose answer the task's filter finds.
        acc: share of right answers, those that are not found counted wrong as the task's metric has them.
        confidence: mean confidence of the answers that have one; nan where none has.
        metrics: of these confidences, by name.
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
    found = [answer for r in run.records if isinstance(r, GenerationRecord) for answer in r.budgets or ()]
    rows = []
    for budget in sorted({answer.budget for answer in found}):
        here = [answer for answer in found if answer.budget == budget]
        outcomes = [answer.correct for answer in here if answer.correct is not None]
        pairs = [(a.confidence, a.correct) for a in here if a.confidence is not None and a.correct is not None]
        confidence, correct = np.array(pairs, dtype=float).reshape(-1, 2).T
        arrays = confidence, correct.astype(int)
        rows.append(
            AtBudget(
                budget,
                n_docs=len(here),
                n_cut=sum(answer.n_tokens > budget for answer in here),
                n_answered=sum(answer.outcome == "answered" for answer in here),
                acc=accuracy(sum(outcomes), len(outcomes)),
                confidence=float(confidence.mean()) if len(confidence) else float("nan"),
                metrics={
                    name: measure(metric_of(name), arrays, run.n_bins, with_stderr=False)
                    for name in columns("report: budgets")
                },
            )
        )
    return tuple(rows)
