"""What a report says and shows, as data: no markup, no drawing."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_calibration.decisions import Decision
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import Null
from lm_eval_calibration.metrics.group_errors import GroupErrors
from lm_eval_calibration.plots import (
    Reliability,
    RiskCoveragePoint,
    Vocabulary,
    prepare_reliability,
    prepare_risk_coverage,
)
from lm_eval_calibration.reports.names import EVERYTHING
from lm_eval_calibration.reports.report.budgets import AtBudget, by_budget
from lm_eval_calibration.reports.report.examples import Example, worst_errors
from lm_eval_calibration.reports.report.explorer.docs import ExplorableDocs, explorable_docs
from lm_eval_calibration.reports.report.method import method
from lm_eval_calibration.reports.report.recalibration import (
    AtTemperature,
    Recalibrated,
    at_temperatures,
    recalibrated,
)
from lm_eval_calibration.reports.report.verdicts import Answer, answers, spread
from lm_eval_calibration.results import Measured, Run
from lm_eval_calibration.results.columns import columns
from lm_eval_calibration.results.doc_fields import ALL
from lm_eval_calibration.results.grouping import TASK
from lm_eval_calibration.results.task_docs import TaskDocs

NO_ANSWERS = "no answers that could be right or wrong; results_*.json and `export` have its full_ece"
NO_CONFIDENCE = "every answer is empty, or the backend gave no probabilities: none has a confidence"
MOST_DOMAINS = 12


@dataclass(frozen=True)
class Domain:
    """Some tasks together: a group, a task, or everything.

    ``n_docs`` includes docs with a broken label. ``nulls`` are what a calibrated model would show. ``recalibrated`` is
    None where docs have choices and generated answers are among them, and where there are too few.
    """

    name: str
    tasks: tuple[str, ...]
    n_docs: int
    metrics: dict[str, Measured]
    nulls: dict[str, Null | None]
    reliability: Reliability
    risk_coverage: tuple[RiskCoveragePoint, ...]
    recalibrated: Recalibrated | None
    answers: tuple[Answer, ...]

    @property
    def left_out(self) -> str:
        """How many docs are in no metric of confidence, and why, in words; "" where there is none."""
        n = self.n_docs - self.reliability.n_docs
        if not n:
            return ""
        what = "1 question is" if n == 1 else f"{n:,} questions are"
        return f"{what} left out below: a question needs an answer and a valid label"


@dataclass(frozen=True)
class Report:
    """A report.

    Of several domains the first is everything. ``tasks`` are each task's metrics, empty where there is one task.
    ``vocabulary`` is None without token distributions, ``group_errors`` without groups of docs. ``method`` is what a
    reader needs to believe the numbers or to get them again, heading and text. ``left_out`` are the tasks that could
    not be read, and why. ``explorable`` are the docs for those who want to look at single questions; None where the
    form of the report can't show them.
    """

    model: str
    domains: tuple[Domain, ...]
    tasks: dict[str, dict[str, Measured]]
    vocabulary: Vocabulary | None
    temperatures: tuple[AtTemperature, ...]
    budgets: tuple[AtBudget, ...]
    decisions: dict[str, Decision]
    group_errors: GroupErrors | None
    examples: tuple[Example, ...]
    method: tuple[tuple[str, str], ...]
    left_out: dict[str, str]
    explorable: ExplorableDocs | None = None

    @property
    def n_docs(self) -> int:
        """Docs in all."""
        return self.domains[0].n_docs

    @property
    def by_overconfidence(self) -> list[tuple[str, dict[str, Measured]]]:
        """The tasks, the most overconfident first, those where it is undefined last."""

        def key(item: tuple[str, dict[str, Measured]]) -> tuple[bool, float]:
            value = item[1]["overconfidence"].value
            return math.isnan(value), -value

        return sorted(self.tasks.items(), key=key)


def make_report(run: Run, *, redact: bool = False, explorable: bool = False) -> Report:
    """Work out all that a report of a run shows.

    Args:
        run: with answers.
        redact: without texts of docs, prompts and answers.
        explorable: with every single doc, for a page.

    Raises:
        UserError: no task has answers that could be right or wrong.
    """
    from tqdm import tqdm

    run = _with_answers(run)
    parts = tqdm(domains_of(run).items(), desc="Domains", unit="domain", delay=2, leave=False)
    domains = tuple(_domain(run, name, tasks) for name, tasks in parts)
    several = tqdm(run.tasks if len(run.tasks) > 1 else (), desc="Tasks", unit="task", delay=2, leave=False)
    names = columns("report: each task")
    return Report(
        model=run.model,
        domains=domains,
        tasks={task: run.metrics(task, names=names, with_stderr=False) for task in several},
        vocabulary=None if math.isnan(domains[0].metrics["full_ece"].value) else run.vocabulary(),
        temperatures=at_temperatures(run),
        budgets=by_budget(run),
        decisions=_decisions(run, domains),
        group_errors=_group_errors(run, redact),
        examples=worst_errors(run, redact=redact),
        method=method(run, domains[0].tasks),
        left_out=run.left_out,
        explorable=explorable_docs(run, redact=redact) if explorable else None,
    )


def _decisions(run: Run, domains: Sequence[Domain]) -> dict[str, Decision]:
    """When the model may answer alone in each domain; nothing of one where that can't be decided."""
    found = {}
    for domain in domains:
        with suppress(ValueError):  # docs with choices and docs without, or too few of them
            found[domain.name] = run.decide(domain.tasks)
    return found


def _group_errors(run: Run, redact: bool) -> GroupErrors | None:
    """Errors of every group of the docs; of tasks alone where values of fields must not be shown, None without any."""
    with suppress(ValueError, UserError):  # docs with choices and docs without; one task
        found = run.group_errors(groups=TASK if redact else ALL)
        return found if found.groups else None
    return None


def _with_answers(run: Run) -> Run:
    """The run without the tasks that have no scored answer."""
    without = {task: reason for task, docs in run.docs.items() if (reason := _reason_without_answers(docs))}
    if len(without) == len(run.docs):
        raise UserError("; ".join(f"{task}: {reason}" for task, reason in without.items()))
    docs = {task: docs for task, docs in run.docs.items() if task not in without}
    return Run(run.configuration, docs, run.n_bins, {**run.left_out, **without})


def _reason_without_answers(docs: TaskDocs) -> str:
    if max(docs.correct, default=-1) < 0:  # texts of a corpus, or no sound label at all
        return NO_ANSWERS
    return "" if any(map(docs.has_confidence, docs.order.tolist())) else NO_CONFIDENCE


def domains_of(run: Run) -> dict[str, tuple[str, ...]]:
    """Return what verdicts are given on: everything, and the largest groups and the tasks in none of them.

    A group that is everything goes by that name; with more than twelve tasks and no groups there is everything alone.
    """
    parts = {name: tasks for name, tasks in run.groups.items() if tasks != run.tasks}
    largest = {
        name: tasks for name, tasks in parts.items() if not any(set(tasks) < set(other) for other in parts.values())
    }
    in_groups = {task for tasks in largest.values() for task in tasks}
    alone: dict[str, tuple[str, ...]] = {task: (task,) for task in run.tasks if task not in in_groups}
    domains = {**largest, **alone}
    if len(run.tasks) == 1:
        return domains
    return {EVERYTHING: run.tasks, **(largest if len(domains) > MOST_DOMAINS else domains)}


def _domain(run: Run, name: str, tasks: Sequence[str]) -> Domain:
    confidence, correct = run.arrays("top_label", tasks)
    metrics = run.metrics(tasks, names=columns("all"), with_stderr=False)
    nulls = {metric: run.null(metric, tasks) for metric in columns("report: compared with a calibrated model")}
    after = recalibrated(run, tasks)
    cluster, guessing = run.clusters("top_label", tasks), chance(run, tasks)
    return Domain(
        name=name,
        tasks=tuple(tasks),
        n_docs=sum(len(run.docs[task]) for task in tasks),
        metrics=metrics,
        nulls=nulls,
        reliability=prepare_reliability(confidence, correct, n_bins=run.n_bins),
        risk_coverage=prepare_risk_coverage(confidence, correct),
        recalibrated=after,
        answers=answers(
            metrics,
            nulls,
            confidence,
            correct,
            after and after.changes,
            cluster=cluster,
            chance=guessing,
            spread_after=spread(after.confidence, guessing) if after else 1.0,
        ),
    )


def chance(run: Run, tasks: Sequence[str]) -> Any:
    """Return how often guessing among each doc's choices would be right, [N]; 0 where not all docs have choices."""
    if run.kinds(tasks) != {"multiple_choice"}:
        return 0.0
    probs, _ = run.arrays("choices", tasks)
    return np.array([1 / len(row) for row in probs])
