"""What a decision-maker wants to know of a domain: questions, and answers in words with numbers and intervals."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from lm_eval_calibration.metrics import Null, tendency, too_few_to_tell
from lm_eval_calibration.metrics.verdicts import ALPHA
from lm_eval_calibration.recalibration import Change
from lm_eval_calibration.reports.numbers import count, interval, number, p_equals, percent
from lm_eval_calibration.reports.sentences import how_well_apart
from lm_eval_calibration.results import Measured
from lm_eval_calibration.results.measured import accuracy

CONFIDENT = 0.9

UNKNOWN = "Can't tell"

LEVEL_OF_AN_ANSWER = ALPHA / 3
"""Of the tests behind the answers, so that all answers of a page together are false of at most 5% of calibrated models:
over- or underconfident, confident errors, miscalibrated at all. That of recalibration has its own, far below. Beating
guessing is no matter of calibration: that answer is the 95% interval's beside it, by itself."""

Tone = Literal["good", "bad", ""]

FEW = 30
"""Of fewer answers a share is given as a count: 1 of 1, not 100%."""

NARROW = 0.1
"""Confidences of which nine of ten lie this close together say about the same of every answer."""


class Answer(NamedTuple):
    """A question as a decision-maker asks it, the answer in a few words, and the numbers that it rests on."""

    question: str
    short: str
    figures: str
    tone: Tone


def spread(confidence: Any, chance: Any) -> float:
    """Return how far apart nine of ten confidences lie, less what guessing would have; with 3 choices 1/3 says nothing.

    Args:
        confidence: [N].
        chance: [N] how often guessing among each doc's choices would be right; 0 for written answers.
    """
    low, high = np.quantile(np.asarray(confidence) - np.asarray(chance), [0.05, 0.95])
    return float(high - low)


def answers(
    metrics: dict[str, Measured],
    nulls: dict[str, Null | None],
    confidence: Any,
    correct: Any,
    changes: Sequence[Change] | None,
    *,
    cluster: Any = None,
    chance: Any = 0.0,
    spread_after: float = 1.0,
) -> tuple[Answer, ...]:
    """Return the answers on a domain, five or, where it is known how often guessing is right, six.

    Args:
        metrics: of the domain, by name.
        nulls: of the same metrics.
        confidence: [N] of its docs that have one.
        correct: [N] whether these are right.
        changes: what recalibration does; None where there is none.
        cluster: [N] what these were drawn with; None where each was by itself.
        chance: [N] how often guessing among the choices would be right; 0 for written answers.
        spread_after: of the recalibrated confidences.
    """
    acc = accuracy(correct, cluster)  # of the docs that the difference is about, not of all
    gap = _gap(acc, metrics["overconfidence"], nulls["overconfidence"], float(np.mean(confidence)))
    return (
        gap,
        *([_guessing(acc, float(np.mean(chance)))] if np.all(np.asarray(chance) > 0) else []),
        _discrimination(metrics["auroc"]),
        _confident_errors(metrics["confident_error_rate"], int(np.count_nonzero(np.asarray(confidence) >= CONFIDENT))),
        _recalibration(changes, is_erased=spread_after < NARROW <= spread(confidence, chance)),
        _enough(nulls["ece"], len(confidence), is_off=gap.tone == "bad"),
    )


def points(share: float) -> str:
    """Return a share in points of a hundred, with a digit where it is small."""
    return f"{abs(share) * 100:.0f}" if abs(share) >= 0.095 else f"{abs(share) * 100:.1f}"


def _gap(acc: Measured, gap: Measured, null: Null | None, confidence: float) -> Answer:
    question = "Is it right as often as it says?"
    figures = f"It says {percent(confidence)} on average and is right {_percent(acc, ' of the time')}"
    if math.isnan(gap.low):
        return Answer(question, UNKNOWN, f"{figures}; {gap.reason or 'the difference has no interval'}.", "")
    difference = f"{gap.value * 100:+.1f} points {interval(gap.low * 100, gap.high * 100, '+.1f')}"
    figures = f"{figures}; the difference is {difference}."
    kind = tendency((gap.low, gap.high), null, alpha=LEVEL_OF_AN_ANSWER)
    if not kind:
        return Answer(question, "No clear difference on average", figures, "")
    return Answer(question, f"{kind.capitalize()} by {points(gap.value)} points", figures, "bad")


def _guessing(acc: Measured, chance: float) -> Answer:
    question = "Is it right more often than by guessing?"
    figures = f"Right {_percent(acc, ' of the time')}; guessing would be right {percent(chance)} of the time."
    if acc.low > chance:
        return Answer(question, "Yes", figures, "")
    if acc.high < chance:
        return Answer(question, "No, less often", figures, "bad")
    return Answer(question, UNKNOWN if math.isnan(acc.low) else "No clear difference from guessing", figures, "")


def _discrimination(auroc: Measured) -> Answer:
    question = "Can it tell its right answers from its wrong ones?"
    if math.isnan(auroc.value):
        return Answer(question, UNKNOWN, f"{auroc.reason or 'The AUROC is undefined'}.", "")
    words = how_well_apart(auroc.value, auroc.low)
    figures = (
        f"Of a right and a wrong answer it is surer of the right one {_percent(auroc, ' of the time')}; "
        "a coin toss is 50% (AUROC)."
    )
    if auroc.high < 0.5:
        return Answer(question, "The wrong way round: it is surer of its wrong answers", figures, "bad")
    return Answer(question, words[0].upper() + words[1:], figures, "good" if auroc.low >= 0.7 else "")


def _confident_errors(rate: Measured, n_confident: int) -> Answer:
    question = "How often is it wrong when it is at least 90% sure?"
    if math.isnan(rate.value):
        none = f"None of the {count(rate.n_docs)} answers has a confidence of at least 90%."
        return Answer(question, "It is never that sure", none, "")
    tone: Tone = "bad" if rate.low > 0.1 else "good" if rate.high <= 0.1 else ""
    n_wrong = round(rate.value * n_confident)
    short = f"{percent(rate.value)} of the time" if n_confident >= FEW else f"{n_wrong} of {n_confident} answers"
    if not tone:
        short += ": too few to tell"
    between = "" if math.isnan(rate.low) else f"{interval(rate.low, rate.high, '.0%')}: "
    figures = (
        f"{between}{count(n_confident)} of {count(rate.n_docs)} answers {'has' if n_confident == 1 else 'have'} a "
        "confidence of at least 90%; of these, a calibrated model would get at most 10% wrong."
    )
    return Answer(question, short, figures, tone)


def _recalibration(changes: Sequence[Change] | None, *, is_erased: bool) -> Answer:
    question = "Would it be better after recalibration?"
    if changes is None:
        reason = "That needs enough questions to fit on others, all with choices or all without."
        return Answer(question, "Not tried", reason, "")
    of = {change.name: change for change in changes}
    if "nll" in of:
        how, proper, name = "One temperature", of["nll"], "log loss"
    else:
        how, proper, name = "Platt scaling", of["brier_top_label"], "squared error"
    ece = of["ece"]
    figures = f"{how}, evaluated on docs it was not fitted on: {_change('calibration error', ece)}, "
    figures += f"{_change(name, proper)}."
    if "worse" in (ece.verdict, proper.verdict):
        return Answer(question, "No, it would be worse", figures, "bad")
    if "better" in (ece.verdict, proper.verdict):
        if is_erased:
            figures += " Afterwards its confidence says hardly more than guessing would."
            return Answer(question, "Only by giving nearly all answers the same confidence", figures, "")
        return Answer(question, "Yes", figures, "good")
    return Answer(question, "No clear improvement", figures, "")


def _enough(null: Null | None, n_docs: int, *, is_off: bool) -> Answer:
    """Whether the calibration error is known; ``is_off``: confidence is shown to be off on average, so it isn't 0."""
    question = "Are there enough questions to measure its calibration?"
    if null is None or math.isnan(null.p_value):
        nothing = f"What a calibrated model would show on these {count(n_docs)} docs is undefined."
        return Answer(question, UNKNOWN, nothing, "")
    noise = (
        f"The calibration error is {number(null.value, 3)}; on these {count(n_docs)} docs a perfectly calibrated model "
        f"would show {number(null.mean, 3)} on average, and 95% of the time at most {number(null.upper, 3)} "
        f"({p_equals(null.p_value)})."
    )
    if null.p_value > LEVEL_OF_AN_ANSWER and not is_off:
        return Answer(question, "No: its calibration error could be chance", noise, "bad")
    if null.p_value <= LEVEL_OF_AN_ANSWER and too_few_to_tell("ece", null, n_docs) is None:
        return Answer(question, "Yes", noise, "good")
    return Answer(question, "Enough to see that it is miscalibrated, not by how much", noise, "")


def _percent(found: Measured, unit: str) -> str:
    between = "" if math.isnan(found.low) else f" {interval(found.low, found.high, '.0%')}"
    return f"{percent(found.value)}{unit}{between}"


def _change(name: str, change: Change) -> str:
    values = f"{number(change.before, 3)} → {number(change.after, 3)}"
    return f"{name} {values} (change {interval(change.low, change.high, '+.3f')})"
