"""What a decision means, in the words of those who act on it."""

import math

from lm_eval_calibration.decisions import CostDecision, Decision, Share
from lm_eval_calibration.decisions.decide import GroupDecision
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.numbers import count, interval, number, percent

RESTS_ON = """It holds for questions that are drawn like these (exchangeable docs), with this model, prompt and \
settings; of other questions it says nothing"""


def may_answer(decision: Decision) -> str:
    """Return from which confidence on it may answer, or why nowhere, by a decision for all docs in one group."""
    group = decision.groups[""]
    threshold, shown = group.threshold, group.shown
    if threshold.value is None:
        return f"It may not answer alone: {why_not(group, decision.wanted.error_rate)}."
    answered = f"it then answers {share(shown.coverage)} of other questions"
    errors = f", and {share(shown.errors)} of these answers are wrong" if shown.errors.total else ""
    return f"It may answer from a confidence of {number(threshold.value)} on: {answered}{errors}."


def why_not(group: GroupDecision, wanted_rate: float) -> str:
    """Return why no threshold holds, and what would help."""
    threshold, rate = group.threshold, percent_of(wanted_rate)
    found = f"no confidence is shown to keep wrong answers to {rate}"
    if group.docs_needed is None:
        return f"{found}; as far as can be seen its answers are wrong more often at every confidence"
    needed = _rounded(group.docs_needed)
    found += f" with {counted(threshold.n_tested, what='test questions')}"
    return f"{found}; if its error rates are what they seem, it takes about {needed} in all"


def what_it_means(decision: Decision) -> str:
    """Return what is promised, how firmly, and what the promise rests on."""
    wanted = decision.wanted
    rate, level = percent_of(wanted.error_rate), percent_of(wanted.confidence_level)
    where = "of its answers" if decision.by is None else f"of its answers in every group ({decision.by}) at once"
    drawn = "questions" if decision.n_clusters is None else f"{count(decision.n_clusters)} clusters of questions"
    if all(value is None for value in decision.thresholds.values()):
        return f"Nothing is promised. A threshold would promise that at most {rate} {where} are wrong."
    return (
        f"The promise: at most {rate} {where} are wrong. Decided anew on other samples of {drawn} like this one, it "
        f"would be kept at least {level} of the time. {RESTS_ON}."
    )


def what_it_costs(cost: CostDecision, wrong: float, abstain: float) -> str:
    """Return the cheapest way to answer and what it saves."""
    how = {0.0: "always to answer", float("inf"): "never to answer"}
    chosen = how.get(cost.threshold, f"to answer from a confidence of {number(cost.threshold)} on")
    mean = f"{number(cost.cost.value)} {interval(cost.cost.low, cost.cost.high)}"
    saved = f"{number(cost.saved.value)} {interval(cost.saved.low, cost.saved.high)}"
    simple = {"always": "always answering", "never": "never answering"}[cost.compared_with]
    beside = f"always {number(cost.always.value)}, never {number(cost.never)}"
    less = "" if cost.coverage in {0, 1} else f" It saves {saved} against {simple}."
    return (
        f"If a wrong answer costs {wrong:g} and an abstention {abstain:g}, the cheapest is {chosen}: {mean} a question "
        f"({beside}).{less}"
    )


def share(found: Share, digits: int = 1) -> str:
    """Return a share as "42.0% [39.1%, 45.2%]"."""
    if not found.total:
        return "none"
    return f"{percent(found.value, digits)} [{percent(found.low, digits)}, {percent(found.high, digits)}]"


def percent_of(rate: float) -> str:
    """Return a rate without needless digits: 5%, 0.5%."""
    return f"{100 * rate:.4g}%"


def _rounded(n: int) -> str:
    """An extrapolated number of docs, to two digits, upward."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return count(math.ceil(n / unit) * unit)
