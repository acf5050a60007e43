"""What a decision-maker wants to know of a domain: questions, and answers in words with figures and intervals."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from lm_eval_calibration.metrics import Null, too_few_to_tell
from lm_eval_calibration.recalibration import Change
from lm_eval_calibration.reports.sentences import how_well_apart
from lm_eval_calibration.results import Measured

CONFIDENT = 0.9

Tone = Literal["good", "bad", ""]


class Answer(NamedTuple):
    """A question and its answer.

    Attributes:
        question: as a decision-maker asks.
        short: the answer in a few words.
        figures: what it rests on.
        tone: whether that is good news, bad news, or neither.
    """

    question: str
    short: str
    figures: str
    tone: Tone


def answers(
    metrics: dict[str, Measured], nulls: dict[str, Null | None], confidence: Any, changes: Sequence[Change] | None
) -> tuple[Answer, ...]:
    """Return the five answers on a domain.

    Args:
        metrics: of the domain, by name.
        nulls: of the same.
        confidence: [N] of its docs.
        changes: what recalibration does; None where there is none.
    """
    return (
        _gap(metrics["acc"], metrics["overconfidence"], float(np.mean(confidence))),
        _apart(metrics["auroc"]),
        _sure_and_wrong(metrics["confident_error_rate"], int(np.count_nonzero(np.asarray(confidence) >= CONFIDENT))),
        _after(changes),
        _enough(nulls["ece"], len(confidence)),
    )


def points(share: float) -> str:
    """A share in points of a hundred, with a digit where it is small."""
    return f"{abs(share) * 100:.0f}" if abs(share) >= 0.095 else f"{abs(share) * 100:.1f}"


def _gap(acc: Measured, gap: Measured, said: float) -> Answer:
    question = "Is it as sure as it is right?"
    figures = f"It says {said:.0%} on average and is right {acc.value:.0%} of the time [{acc.low:.0%}, {acc.high:.0%}]"
    if math.isnan(gap.low):
        return Answer(question, "Can't be said", f"{figures}: {gap.reason}.", "")
    between = f"the difference is {gap.value * 100:+.1f} points [{gap.low * 100:+.1f}, {gap.high * 100:+.1f}]"
    if gap.low <= 0 <= gap.high:
        return Answer(question, "On average no clear difference", f"{figures}; {between}.", "")
    kind = "Overconfident" if gap.value > 0 else "Underconfident"
    return Answer(question, f"{kind} by {points(gap.value)} points", f"{figures}; {between}.", "bad")


def _apart(auroc: Measured) -> Answer:
    question = "Can it tell its right answers from its wrong ones?"
    if math.isnan(auroc.value):
        return Answer(question, "Can't be said", f"{auroc.reason}.", "")
    words = how_well_apart(auroc.value, auroc.low)
    figures = (
        f"Of a right and a wrong answer it is surer of the right one {auroc.value:.0%} of the time "
        f"[{auroc.low:.0%}, {auroc.high:.0%}]; a coin toss is 50% (AUROC)."
    )
    return Answer(question, words[0].upper() + words[1:], figures, "good" if auroc.low >= 0.7 else "")


def _sure_and_wrong(rate: Measured, n_confident: int) -> Answer:
    question = "How often is it wrong when it is at least 90% sure?"
    if math.isnan(rate.value):
        return Answer(
            question, "It never is that sure", f"None of {rate.n_docs:,} answers has a confidence of 90%.", ""
        )
    figures = (
        f"[{rate.low:.0%}, {rate.high:.0%}], of the {n_confident:,} answers of {rate.n_docs:,} that it is so sure of; "
        "no more than 10% would be as it says."
    )
    tone: Tone = "bad" if rate.low > 0.1 else "good" if rate.high <= 0.1 else ""
    return Answer(question, f"{rate.value:.0%} of the time", figures, tone)


def _after(changes: Sequence[Change] | None) -> Answer:
    question = "Would it be better after recalibration?"
    if changes is None:
        why = "That needs enough questions to fit on others, all with choices or all without."
        return Answer(question, "Not tried", why, "")
    of = {change.name: change for change in changes}
    how, proper, name = (
        ("One temperature", of["nll"], "log loss")
        if "nll" in of
        else ("Platt scaling", of["brier_top_label"], "squared error")
    )
    ece = of["ece"]
    figures = (
        f"{how}, judged on docs it was not fitted on: calibration error {ece.before:.3f} → {ece.after:.3f} "
        f"(change [{ece.low:+.3f}, {ece.high:+.3f}]), {name} {proper.before:.3f} → {proper.after:.3f} "
        f"(change [{proper.low:+.3f}, {proper.high:+.3f}])."
    )
    if "worse" in (ece.verdict, proper.verdict):
        return Answer(question, "No, it would be worse", figures, "bad")
    if "better" in (ece.verdict, proper.verdict):
        return Answer(question, "Yes", figures, "good")
    return Answer(question, "Not shown", figures, "")


def _enough(null: Null | None, n_docs: int) -> Answer:
    question = "Are there enough questions to say so?"
    if null is None or math.isnan(null.p_value):
        return Answer(question, "Can't be said", f"The calibration error of {n_docs:,} docs has no null.", "")
    noise = (
        f"The calibration error is {null.value:.3f}; a perfectly calibrated model would show {null.mean:.3f} on "
        f"average and up to {null.upper:.3f} on these {n_docs:,} docs (p = {null.p_value:.2g})."
    )
    if too_few_to_tell("ece", null, n_docs) is None:
        return Answer(question, "Yes", noise, "good")
    if null.p_value < 0.05:
        return Answer(question, "To say that it is off, but not by how much", noise, "")
    return Answer(question, "No: this could be chance", noise, "bad")
