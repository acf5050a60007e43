"""No sentence of a report contradicts the numbers beside it, whatever the run: runs are drawn at random."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_runs import stock_line, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.decisions import Decision
from lm_eval_calibration.metrics.group_errors import GroupErrors
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord
from lm_eval_calibration.reports.decide.sentences import may_answer, what_it_means
from lm_eval_calibration.reports.groups import what_groups_say
from lm_eval_calibration.reports.report.content import Domain, Report, make_report
from lm_eval_calibration.reports.report.formats import to_markdown
from lm_eval_calibration.reports.report.verdicts import LEVEL_OF_AN_ANSWER

pytest.importorskip("jinja2", reason="reports need jinja2 (extra `report`)")

NUMBER = r"[-+]?\d[\d,]*\.?\d*"


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(NUMBER, text)]


def random_lines(seed: int) -> list[dict[str, Any]]:
    """A model of random sharpness and skill on a random number of docs with choices of random number."""
    rng = np.random.default_rng([20, seed])
    n, k = int(rng.choice([2, 5, 12, 40, 150, 400])), int(rng.integers(2, 6))
    skill, sharpness = rng.choice([0.0, 0.5, 2.0, 8.0]), rng.choice([0.05, 0.5, 1.0, 2.0, 10.0])
    lines = []
    for i in range(n):
        gold = int(rng.integers(k))
        z = rng.normal(0, 1, k) + (skill if rng.random() < 0.9 else -skill) * (np.arange(k) == gold)
        log_likelihoods = (sharpness * z - max(4, (sharpness * z).max())).tolist()  # none is positive
        record = ChoicesRecord(
            task="t", doc_id=i, doc_hash=f"{seed}-{i}", prompt_hash=str(i), gold=gold, log_likelihoods=log_likelihoods
        )
        line = stock_line(i, f"Which {i}?", log_likelihoods, gold)
        lines.append({**line, "doc_hash": record.doc_hash, RECORD_KEY: record.to_dict()})
    return lines


def check_gap(domain: Domain, short: str, figures: str, tone: str) -> None:
    gap = domain.metrics["overconfidence"]
    if math.isnan(gap.low):
        assert (short, tone) == ("Can't tell", "")
        return
    confidence, accuracy, low, high, difference, start, end = numbers(figures)
    assert low <= accuracy <= high
    assert start - 0.051 <= difference <= end + 0.051
    assert difference == pytest.approx(confidence - accuracy, abs=1.05)
    kind = short.split(maxsplit=1)[0]
    assert kind in ("Overconfident", "Underconfident", "No")
    if kind != "No":
        assert (start >= 0) == (kind == "Overconfident")
        assert (end <= 0) == (kind == "Underconfident")
        assert numbers(short)[0] == pytest.approx(abs(difference), abs=0.55)
    assert tone == ("" if kind == "No" else "bad")


def check_guessing(domain: Domain, short: str, figures: str, tone: str) -> None:
    share, low, high, chance = numbers(figures)
    assert low <= share <= high
    assert short != "Yes" or low + 0.5 >= chance - 0.5
    assert short != "No, less often" or high - 0.5 <= chance + 0.5
    assert (tone == "bad") == (short == "No, less often")


def check_confident(domain: Domain, short: str, figures: str, tone: str) -> None:
    rate = domain.metrics["confident_error_rate"]
    if math.isnan(rate.value):
        assert short == "It is never that sure"
        return
    n_sure = numbers(figures)[-5 if math.isnan(rate.low) else -4]
    assert n_sure >= 1
    if "% of the time" in short:
        assert n_sure >= 30
    else:
        n_wrong, n = numbers(short)[:2]
        assert n == n_sure
        assert n_wrong / n == pytest.approx(rate.value, abs=1e-9)
    assert ("too few to tell" in short) == (tone == "")
    assert tone != "bad" or rate.low > 0.1
    assert tone != "good" or rate.high <= 0.1


def check_enough(domain: Domain, short: str, figures: str, tone: str) -> None:
    if short == "Can't tell":
        return
    value, _, mean, _, upper, p = numbers(figures)
    assert mean <= 1
    assert not short.startswith("No") or p >= LEVEL_OF_AN_ANSWER - 0.001
    is_off = domain.answers[0].tone == "bad"
    assert not short.startswith("Enough") or is_off or p <= LEVEL_OF_AN_ANSWER + 0.001
    if short.startswith("No") and p > 0.06:  # nearer to 5% the quantile and p are a matter of ties
        assert value <= upper + 0.0011


def check_recalibration(domain: Domain, short: str, figures: str, tone: str) -> None:
    if short == "Not tried":
        return
    changes = [numbers(part) for part in re.findall(r"change (\[.*?\])", figures)]
    better, worse = any(part and part[1] < 0 for part in changes), any(part and part[0] > 0 for part in changes)
    assert short != "Yes" or better
    assert short != "No, it would be worse" or worse
    assert short != "No clear improvement" or not better
    assert (tone == "good") == (short == "Yes")


def check_discrimination(domain: Domain, short: str, figures: str, tone: str) -> None:
    auroc = domain.metrics["auroc"]
    if math.isnan(auroc.value):
        assert (short, tone) == ("Can't tell", "")
        return
    value, *ends = numbers(figures.partition("; a coin toss")[0])
    assert value == pytest.approx(100 * auroc.value, abs=0.51)
    assert not ends or ends[0] <= value <= ends[1]
    if short.startswith("The wrong way round"):
        assert ends[1] <= 50.5
        assert tone == "bad"
        return
    if short.startswith("No evidence"):
        assert not ends or ends[0] <= 50.5 <= ends[1] + 1
    else:
        assert ends
        assert ends[0] >= 49.5
    limits = {"very well": 89.5, "fairly well": 69.5, "only weakly": 59.5, "apart well": 79.5}
    limit = next((limit for words, limit in limits.items() if words in short), 0)
    assert value >= limit
    assert tone != "good" or ends[0] >= 69.5


def check_decision(decision: Decision) -> None:
    said, (group,) = may_answer(decision), decision.groups.values()
    if group.threshold.value is None:
        assert said.startswith("It may not answer alone")
        assert what_it_means(decision).startswith("Nothing is promised")
        assert not group.shown.errors.total
        return
    assert what_it_means(decision).startswith("The promise: at most ")
    threshold, answered, *rest = numbers(said)
    assert threshold == pytest.approx(group.threshold.value, abs=5.1e-5)
    low, high, *errors = rest
    assert low <= answered <= high
    assert not errors or errors[1] <= errors[0] <= errors[2]


def check_groups(found: GroupErrors) -> None:
    said, rows = what_groups_say(found), [*found.groups, *found.bins]
    n_off = sum(bool(one.tendency) for one in found.groups)
    assert said.startswith("In none of") == (n_off == 0)
    if n_off:
        assert numbers(said)[:2] == [n_off, len(found.groups)]
    for one in rows:
        assert one.low - 1e-9 <= one.gap <= one.high + 1e-9
        assert one.tendency == ("overconfident" if one.low > 0 else "underconfident" if one.high < 0 else "")


CHECKS = {
    "Can it tell its right": check_discrimination,
    "Is it right as often": check_gap,
    "Is it right more often": check_guessing,
    "How often is it wrong": check_confident,
    "Would it be better": check_recalibration,
    "Are there enough": check_enough,
}


def check_report(report: Report) -> None:
    text = to_markdown(report)
    assert not re.search(r"\b(nan|inf)\b|\bNone\b(?! of the)", text), text
    for domain in report.domains:
        for answer in domain.answers:
            check = next((one for start, one in CHECKS.items() if answer.question.startswith(start)), None)
            if check is not None:
                check(domain, answer.short, answer.figures, answer.tone)
            assert check is not None, answer.question
        check_domain(domain)
    for decision in report.decisions.values():
        check_decision(decision)
    if report.group_errors is not None:
        check_groups(report.group_errors)


def check_domain(domain: Domain) -> None:
    """Answers against each other."""
    said = {answer.question[:20]: answer for answer in domain.answers}
    enough, gap = said["Are there enough que"], said["Is it right as often"]
    assert not (enough.tone == "bad" and gap.tone == "bad"), (enough, gap)
    recalibrated = said["Would it be better a"]
    assert not (recalibrated.short == "Yes" and enough.short.startswith("No:")), recalibrated
    if not math.isnan(domain.metrics["ece"].value) and enough.short != "Can't tell":
        assert numbers(enough.figures)[0] == pytest.approx(domain.metrics["ece"].value, abs=6e-4)


def random_tasks(seed: int) -> dict[str, Any]:
    """A run of one task, or of two."""
    return {"t": random_lines(seed), **({"u": random_lines(seed + 1000)} if seed % 3 == 0 else {})}


@pytest.mark.parametrize("seed", range(8))
def test_sentences_agree_with_their_numbers(seed: int, tmp_path: Path) -> None:
    check_report(make_report(load_run(write_run(tmp_path, random_tasks(seed)))))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 104, 24))
def test_sentences_of_many_reports_agree_with_their_numbers(seed: int, tmp_path: Path) -> None:
    for one in range(seed, seed + 24):
        check_report(make_report(load_run(write_run(tmp_path / str(one), random_tasks(one)))))
