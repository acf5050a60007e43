"""How a threshold does on docs that it was not chosen on."""

from typing import NamedTuple

import numpy as np

from lm_eval_calibration.decisions.thresholds import Answers
from lm_eval_calibration.metrics.uncertainty.clusters import event_interval
from lm_eval_calibration.metrics.validation import FloatArray, IntArray

LEVEL = 0.95
"""Of the intervals."""


class Share(NamedTuple):
    """n of total docs, as a share with its 95% interval; nan where there are none."""

    n: int
    total: int
    value: float
    low: float
    high: float


class AnswersShown(NamedTuple):
    """What a threshold answers, and how often wrongly.

    Attributes:
        coverage: share of the docs that it answers.
        errors: share of these answers that is wrong.
        all_errors: share of wrong answers if everything were answered.
    """

    coverage: Share
    errors: Share
    all_errors: Share


def show_answers(answers: Answers, threshold: FloatArray) -> AnswersShown:
    """Judge thresholds, one for each doc, on docs that they were not chosen on."""
    answered = answers.confidence >= threshold
    given = answers.take(np.flatnonzero(answered))
    return AnswersShown(
        share_of(answered.astype(np.float64), answers.cluster),
        share_of(given.wrong, given.cluster),
        share_of(answers.wrong, answers.cluster),
    )


def share_of(event: FloatArray, cluster: IntArray | None) -> Share:
    """Return the share of docs with the event; the interval is mid-P, of as many docs as the clusters are worth."""
    if not len(event):
        return Share(0, 0, np.nan, np.nan, np.nan)
    low, high = event_interval(event, cluster, LEVEL)
    return Share(int(event.sum()), len(event), float(event.mean()), low, high)
