"""A report as HTML, Markdown, JSON or a picture."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval_calibration.plots import RiskCoveragePoint
from lm_eval_calibration.plots.drawing import draw_reliability
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.reports.decide.formats import as_data as decision_data
from lm_eval_calibration.reports.decide.sentences import may_answer, share, what_it_means
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.formats import pictures
from lm_eval_calibration.reports.groups import HEADS, left_out, rows_of_groups, what_groups_say
from lm_eval_calibration.reports.names import shown, task_name
from lm_eval_calibration.reports.numbers import (
    NOTHING,
    bounds,
    count,
    estimate,
    interval,
    json_text,
    number,
    p_value,
    percent,
    short_time,
)
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.reports.report.content import Domain, Report
from lm_eval_calibration.reports.report.explorer.scopes import scopes
from lm_eval_calibration.reports.sentences import BINNED_INTERVALS
from lm_eval_calibration.reports.tables import markdown_table
from lm_eval_calibration.results import Measured
from lm_eval_calibration.results.columns import columns

MOST_DIAGRAMS = 9


def to_html(report: Report) -> str:
    """Return the page."""
    overconfidence = [(name, found["overconfidence"]) for name, found in report.by_overconfidence]
    return render_page(
        Path(__file__).with_name("report.html"),
        filters={
            "point_at": _point_at,
            "points_data": lambda points: [list(point) for point in points],
            "overconfidence_points": _overconfidence_points,
            "share": share,
            "may_answer": may_answer,
            "what_it_means": what_it_means,
            "what_groups_say": partial(what_groups_say, task=task_name),
            "rows_of_groups": partial(rows_of_groups, task=task_name),
            "left_out": left_out,
        },
        title=f"Calibration of {shown(report.model)}",
        report=report,
        facts={heading: short_time(text) for heading, text in report.method},
        scopes=scopes({d.name: d.tasks for d in report.domains}, report.domains[0].tasks, report.decisions),
        forest=overconfidence,
        binned_intervals=BINNED_INTERVALS,
        reach=_reach([found for _, found in overconfidence]),
    )


def to_markdown(report: Report) -> str:
    """Return the verdicts, the metrics and the method as Markdown."""
    parts = [
        [f"# Can the confidence of {markdown(shown(report.model))} be trusted?"],
        [f"Numbers in brackets are 95% intervals. {BINNED_INTERVALS}"],
        *(part for domain in report.domains for part in _markdown_domain(domain)),
        *_markdown_decisions(report),
        *_markdown_groups(report),
        *_markdown_tasks(report),
        *_markdown_budgets(report),
        ["## The worst confident errors"],
        list(_markdown_errors(report)),
        ["## Method"],
        [
            *(f"- {heading}: {markdown(text)}" for heading, text in report.method),
            *(
                f"- Left out: {markdown(task_name(task))}: {markdown(reason)}"
                for task, reason in report.left_out.items()
            ),
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _markdown_domain(domain: Domain) -> Iterator[list[str]]:
    yield [f"## {markdown(task_name(domain.name))} ({count(domain.n_docs)})"]
    yield [f"{domain.left_out}."] if domain.left_out else []
    yield [f"- {a.question} **{markdown(a.short)}.** {markdown(a.figures)}" for a in domain.answers]
    rows = []
    for name, found in domain.metrics.items():
        null = domain.nulls.get(name)
        calibrated = [number(null.mean), number(null.upper), p_value(null.p_value)] if null else [NOTHING] * 3
        rows.append([f"`{name}`", number(found.value), bounds(found.low, found.high), *calibrated])
    yield markdown_table(["metric", "value", "95% interval", "calibrated: mean", "95% below", "p"], rows)


def _markdown_decisions(report: Report) -> list[list[str]]:
    if not report.decisions:
        return []
    first = next(iter(report.decisions.values()))
    said = [f"- {markdown(task_name(name))}: {may_answer(found)}" for name, found in report.decisions.items()]
    return [["## When may it answer alone?"], said, [what_it_means(first)]]


def _markdown_groups(report: Report) -> list[list[str]]:
    if report.group_errors is None:
        return []
    rows = [[markdown(cell) for cell in row] for row in rows_of_groups(report.group_errors.groups, task_name)]
    said = markdown(what_groups_say(report.group_errors, task_name))
    return [["## Does its confidence hold in every group?"], [said], markdown_table(HEADS, rows)]


def _markdown_tasks(report: Report) -> list[list[str]]:
    if not report.tasks:
        return []
    rows = [
        [markdown(task_name(task)), count(found["acc"].n_docs), *map(estimate, found.values())]
        for task, found in report.by_overconfidence
    ]
    return [["## Each task"], markdown_table(["task", "docs", *columns("report: each task")], rows)]


def _markdown_budgets(report: Report) -> list[list[str]]:
    if not report.budgets:
        return []
    names = columns("report: budgets")
    rows = [
        [
            *map(count, (at.budget, at.n_docs, at.n_cut, at.n_answered)),
            *(estimate(at.acc), number(at.confidence), *(estimate(at.metrics[name]) for name in names)),
        ]
        for at in report.budgets
    ]
    heads = ["tokens of thought", "docs", "cut", "answered", "acc", "mean confidence", *names]
    return [["## More thinking"], markdown_table(heads, rows)]


def _markdown_errors(report: Report) -> Iterator[str]:
    for example in report.examples:
        yield f"- {percent(example.confidence, 1)} sure: {markdown(task_name(example.task))}, doc {example.doc_id}"
        if example.prompt is not None:
            answer, right = (
                markdown(example.answer or "(nothing)"),
                markdown("unknown" if example.right is None else example.right or "(nothing)"),
            )
            yield f"  answered {answer}; the right answer is {right}:"
            yield f"  {markdown(example.prompt)}"


def to_json(report: Report) -> str:
    """Return all that the report shows as JSON; undefined numbers are null."""
    data = {
        "model": shown(report.model),
        "n_docs": report.n_docs,
        "domains": [_domain(domain) for domain in report.domains],
        "tasks": {shown(name): found for name, found in report.tasks.items()},
        "full_ece": report.vocabulary,
        "decisions": {shown(name): decision_data(found) for name, found in report.decisions.items()},
        "group_errors": report.group_errors,
        "budgets": [{**at._asdict(), "acc": at.acc} for at in report.budgets],
        "worst_confident_errors": [vars(example) for example in report.examples],
        "method": dict(report.method),
        "left_out": report.left_out,
    }
    return json_text(data)


def _domain(domain: Domain) -> dict[str, Any]:
    data = {**vars(domain), "name": shown(domain.name), "reliability": domain.reliability.bins}
    if domain.recalibrated:
        data["recalibrated"] = {**domain.recalibrated._asdict(), "reliability": domain.recalibrated.reliability.bins}
        for name in ("notes", "confidence"):
            del data["recalibrated"][name]
    return data


def to_picture(report: Report, form: Form) -> bytes:
    """Return the reliability diagrams of the first domains.

    Raises:
        UserError: matplotlib is not installed.
    """
    diagrams = [(task_name(domain.name), domain.reliability) for domain in report.domains[:MOST_DIAGRAMS]]
    return draw_reliability(diagrams, f"Reliability of {shown(report.model)}", form)


FORMATS: dict[str, Callable[[Report], str | bytes]] = {
    "html": to_html,
    "md": to_markdown,
    "json": to_json,
    **pictures(to_picture),
}
"""Functions by the name of their format."""


def _point_at(points: Sequence[RiskCoveragePoint], coverage: float) -> RiskCoveragePoint:
    """The first point that answers at least this share."""
    return next((point for point in points if point.coverage >= coverage - 1e-9), points[-1])


def _reach(of_tasks: Sequence[Measured]) -> float:
    """How far the axis of the forest plot goes to either side, in fifths."""
    ends = [abs(end) for found in of_tasks for end in (found.value, found.low, found.high) if not math.isnan(end)]
    return max(1, math.ceil(5 * max(ends, default=0))) / 5


def _overconfidence_points(found: Measured) -> str:
    """Over- or underconfidence of a task as a point of the forest plot says it."""
    if math.isnan(found.value):
        return f"undefined: {found.reason}"
    return f"{100 * found.value:+.1f} points {interval(100 * found.low, 100 * found.high, '+.1f')}"
