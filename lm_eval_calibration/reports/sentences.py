"""What the numbers of some docs mean, in plain words."""

from typing import Any

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.reports.numbers import percent

APART = ((0.9, "very well"), (0.8, "well"), (0.7, "fairly well"), (0.6, "only weakly"))
"""From which AUROC on confidence is said to tell right answers from wrong ones how well."""

BINNED_INTERVALS = (
    "The intervals of binned errors (ECE, ACE, Full-ECE) are of the error without what chance adds to their values, so "
    "one may end at its value or below."
)
"""Why an interval need not have its value in the middle."""


def confidence_sentence(confidence: Any, correct: Any) -> str:
    """Return mean confidence, accuracy and the gap between them, and whether the gap could be chance, in words."""
    verdict = f"no clear over- or underconfidence in {len(correct)} questions"
    if len(correct) > 1:
        gap, interval = (
            metrics.overconfidence(confidence, correct),
            metrics.overconfidence_interval(confidence, correct),
        )
        if kind := metrics.tendency(interval, metrics.overconfidence_null(confidence, correct)):
            error = max(gap - interval[0], interval[1] - gap)
            verdict = f"{kind} by {abs(gap) * 100:.0f} points (± {error * 100:.0f})"
    mean, accuracy = percent(np.mean(confidence)), percent(np.mean(correct))
    return f"says {mean} on average, is right {accuracy} of the time: {verdict}."


def ranking_sentence(confidence: Any, correct: Any) -> str:
    """Return how well confidence tells right answers from wrong ones, in words."""
    if len(set(np.asarray(correct).tolist())) < 2:
        return "All answers are right or all are wrong: whether confidence tells them apart is undefined."
    return (
        "Of a right and a wrong answer, it is surer of the right one "
        f"{percent(metrics.auroc(confidence, correct))} of the time (AUROC; 50% is a coin toss)."
    )


def how_well_apart(auroc: float, low: float) -> str:
    """Return how well confidence tells right answers from wrong ones; ``low`` is the lower end of the interval."""
    if low <= 0.5:
        return "no evidence that it tells right answers from wrong ones"
    return next((f"tells them apart {words}" for limit, words in APART if auroc >= limit), "hardly tells them apart")
