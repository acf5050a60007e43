"""What a threshold costs: a wrong answer costs something, an abstention too, a right answer nothing."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.decisions.thresholds import Answers
from lm_eval_calibration.metrics.uncertainty.means import mean_interval, values_of
from lm_eval_calibration.metrics.validation import FloatArray
from lm_eval_calibration.recalibration.operating_points import by_threshold

Answered = NDArray[np.bool_]

LEVEL = 0.95
"""Of the intervals."""


class Costs(NamedTuple):
    """What a wrong answer and an abstention cost, in any unit that both share."""

    wrong: float
    abstain: float


class Cost(NamedTuple):
    """Mean cost of a doc, with its 95% interval."""

    value: float
    low: float
    high: float


class CostCurve(NamedTuple):
    """Mean cost of a doc by threshold.

    Attributes:
        threshold: [M] confidences that occur, falling; before them inf, which never answers.
        cost: [M] mean cost of a doc.
        coverage: [M] share of the docs that is answered.
    """

    threshold: FloatArray
    cost: FloatArray
    coverage: FloatArray


class CostDecision(NamedTuple):
    """The threshold that was cheapest on some docs, on others.

    Attributes:
        threshold: confidence from which to answer; inf where never to answer was cheapest, 0 always.
        coverage: share of the other docs that it answers.
        cost: mean cost of one of them.
        always: the same if everything were answered.
        never: the cost of an abstention.
        saved: cheapest of always and never (as seen on the first docs) less the threshold's, doc by doc.
        compared_with: "always" or "never".
    """

    threshold: float
    coverage: float
    cost: Cost
    always: Cost
    never: float
    saved: Cost
    compared_with: str


def cost_curve(answers: Answers, costs: Costs) -> CostCurve:
    """Mean cost by threshold: (wrong answers x cost_wrong + abstentions x cost_abstain) / N."""
    values, n_answered, n_wrong = by_threshold(answers.confidence, answers.wrong)
    n_answered, n_wrong = np.append(0.0, n_answered), np.append(0.0, n_wrong)
    total = n_wrong * costs.wrong + (len(answers) - n_answered) * costs.abstain
    return CostCurve(np.append(np.inf, values), total / len(answers), n_answered / len(answers))


def decide_by_cost(calibration: Answers, others: Answers, costs: Costs) -> CostDecision:
    """Choose the cheapest threshold on calibration docs and judge it on others."""
    curve = cost_curve(calibration, costs)
    best = len(curve.cost) - 1 - int(np.argmin(curve.cost[::-1]))  # of equal costs the one that answers more
    threshold = 0.0 if best == len(curve.cost) - 1 else float(curve.threshold[best])
    chosen, always = (others.confidence >= threshold), np.ones(len(others), dtype=np.bool_)
    simple = always if curve.cost[-1] <= curve.cost[0] else ~always
    return CostDecision(
        threshold,
        float(chosen.mean()),
        _cost(others, chosen, costs),
        _cost(others, always, costs),
        costs.abstain,
        _difference(others, simple, chosen, costs),
        "always" if simple.all() else "never",
    )


def _cost(answers: Answers, answered: Answered, costs: Costs) -> Cost:
    """Mean over the docs with its interval."""
    wrong = answers.wrong
    value = np.where(answered, costs.wrong * wrong, costs.abstain)
    return _mean(answers, value, np.asarray(costs.wrong * answered, dtype=np.float64))


def _difference(answers: Answers, one: Answered, other: Answered, costs: Costs) -> Cost:
    """Mean cost of one way of answering less that of another, doc by doc."""
    more = one.astype(np.float64) - other  # what it answers more
    saved = np.asarray(more * (costs.wrong * answers.wrong - costs.abstain), dtype=np.float64)
    return _mean(answers, saved, np.asarray(costs.wrong * more, dtype=np.float64))


def _mean(answers: Answers, value: FloatArray, added: FloatArray) -> Cost:
    if len(answers) < 2:
        return Cost(float(value.mean()), np.nan, np.nan)
    values = values_of(value, answers.wrong, added, np.ones(len(value)), cluster=answers.cluster)
    return Cost(float(value.mean()), *mean_interval(values, LEVEL))
