"""What a report says and shows, as data: no words of HTML, no ink."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import Null
from lm_eval_calibration.plots import (
    Reliability,
    RiskCoveragePoint,
    Vocabulary,
    prepare_reliability,
    prepare_risk_coverage,
)
from lm_eval_calibration.recalibration import (
    Change,
    RecalibrationWarning,
    Temperature,
    TokenGrid,
    before_after,
    cross_fit,
)
from lm_eval_calibration.recalibration.by_group import MIN_FIT_DOCS
from lm_eval_calibration.reports.report.examples import Example, worst_errors
from lm_eval_calibration.reports.report.method import method
from lm_eval_calibration.reports.report.verdicts import Answer, answers
from lm_eval_calibration.results import REPORTED, Measured, Run
from lm_eval_calibration.results.task_docs import TaskDocs

EVERYTHING = "All together"
NO_ANSWERS = "no answers that could be right or wrong; results_*.json and `export` have its full_ece"
NO_CONFIDENCE = "every answer is empty, or the backend gave no probabilities: none has a confidence"
MOST_DOMAINS = 12

OF_A_TASK = ("acc", "ece", "overconfidence", "auroc")
WITH_NULL = ("ece", "ace", "full_ece", "brier_score", "auroc", "overconfidence")
CHANGED = ("ece", "nll", "brier_score", "brier_top_label", "overconfidence", "auroc", "confident_error_rate")

OF_ORDER = ("auroc",)
"""One rising map changes nothing of it; that each fold has its own map does, and says nothing of recalibration."""


class Recalibrated(NamedTuple):
    """What a map that was fitted on other docs does.

    Attributes:
        method: ``temperature`` where docs have choices; ``platt`` for generated answers.
        temperature: mean of the folds'; above 1 where the model was too sure; nan for Platt scaling.
        changes: metrics before and after.
        reliability: the diagram after.
        notes: what the fit has to say, as where the best temperature lies beyond all bounds.
    """

    method: str
    temperature: float
    changes: tuple[Change, ...]
    reliability: Reliability
    notes: tuple[str, ...] = ()

    def change(self, name: str) -> Change:
        """Return the change of a metric."""
        return next(change for change in self.changes if change.name == name)


class AtTemperature(NamedTuple):
    """What the tokens of the gold answers show when every next-token distribution is taken at one temperature.

    Attributes:
        temperature: T; 1 is the model as it is.
        nll: mean negative log-likelihood of a gold token, in nats.
        full_ece: at T. It falls to 0 where no entry is left above 1/n_bins, so it is no guide to T by itself.
        acc: accuracy at T; choices of several tokens can change their order.
    """

    temperature: float
    nll: float
    full_ece: float
    acc: float


@dataclass(frozen=True)
class Domain:
    """Some tasks together: a group, a task, or everything.

    Attributes:
        name: of the group or task; :data:`EVERYTHING`.
        tasks: whose docs are pooled.
        n_docs: docs, those with a broken label included.
        metrics: by name.
        nulls: what a calibrated model would show, by name.
        reliability: the diagram.
        risk_coverage: the curve.
        recalibrated: None where docs have choices and generated answers are among them, and where there are too few.
        answers: what it means in words.
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
    def without(self) -> str:
        """How many docs are in no metric of confidence, and why, in words; "" where there is none."""
        n = self.n_docs - self.reliability.n_docs
        if not n:
            return ""
        what = "1 question is" if n == 1 else f"{n:,} questions are"
        return f"{what} left out below: an empty answer, or a label that can't be right, has no confidence to judge"


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        model: name of the model.
        domains: everything first, where there are several.
        tasks: each task's metrics, by name; empty where there is one.
        vocabulary: where Full-ECE comes from; None without token distributions.
        temperatures: the tokens at each temperature of the grid; empty where the run asked for none.
        examples: the worst confident errors.
        method: what a reader needs to believe the numbers or to get them again, heading and text.
        left_out: tasks that could not be read, and why.
    """

    model: str
    domains: tuple[Domain, ...]
    tasks: dict[str, dict[str, Measured]]
    vocabulary: Vocabulary | None
    temperatures: tuple[AtTemperature, ...]
    examples: tuple[Example, ...]
    method: tuple[tuple[str, str], ...]
    left_out: dict[str, str]

    @property
    def n_docs(self) -> int:
        """Docs in all."""
        return self.domains[0].n_docs


def make_report(run: Run, *, redact: bool = False) -> Report:
    """Work out all that a report of a run shows.

    Args:
        run: the run.
        redact: leave out the texts of docs, prompts and answers.

    Raises:
        UserError: no task has answers that could be right or wrong.
    """
    from tqdm import tqdm

    run = _with_answers(run)
    names = domains_of(run)
    work = tqdm(names.items(), desc="Domains", unit="domain", delay=2, leave=False)
    domains = tuple(_domain(run, name, tasks) for name, tasks in work)
    work = tqdm(run.tasks if len(run.tasks) > 1 else (), desc="Tasks", unit="task", delay=2, leave=False)
    tasks = {task: run.metrics(task, names=OF_A_TASK, with_stderr=False) for task in work}
    return Report(
        model=run.model,
        domains=domains,
        tasks=tasks,
        vocabulary=None if math.isnan(domains[0].metrics["full_ece"].value) else run.vocabulary(),
        temperatures=_at_temperatures(run),
        examples=worst_errors(run, redact=redact),
        method=method(run, domains[0].tasks),
        left_out=run.left_out,
    )


def _with_answers(run: Run) -> Run:
    """The run without the tasks of which no doc can be judged."""
    without = {task: reason for task, docs in run.docs.items() if (reason := _why_not(docs))}
    if len(without) == len(run.docs):
        raise UserError("; ".join(f"{task}: {reason}" for task, reason in without.items()))
    docs = {task: docs for task, docs in run.docs.items() if task not in without}
    return Run(run.configuration, docs, run.n_bins, {**run.left_out, **without})


def _why_not(docs: TaskDocs) -> str:
    """Say why no doc of a task can be judged; "" where one can."""
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
    if len(domains) > MOST_DOMAINS:
        return {EVERYTHING: run.tasks, **largest}
    return {EVERYTHING: run.tasks, **domains}


def _domain(run: Run, name: str, tasks: tuple[str, ...]) -> Domain:
    confidence, correct = run.arrays("top_label", tasks)
    n_docs = sum(len(run.docs[task]) for task in tasks)
    metrics = run.metrics(tasks, names=REPORTED, with_stderr=False)
    nulls = {metric: run.null(metric, tasks) for metric in WITH_NULL}
    recalibrated = _recalibrated(run, tasks)
    return Domain(
        name=name,
        tasks=tasks,
        n_docs=n_docs,
        metrics=metrics,
        nulls=nulls,
        reliability=prepare_reliability(confidence, correct, n_bins=run.n_bins),
        risk_coverage=prepare_risk_coverage(confidence, correct),
        recalibrated=recalibrated,
        answers=answers(metrics, nulls, confidence, recalibrated and recalibrated.changes),
    )


def _at_temperatures(run: Run) -> tuple[AtTemperature, ...]:
    """Return what the grid of temperatures shows of all docs; nothing where not all have it (option temperatures)."""
    first = next(iter(run.records), None)
    if getattr(first, "temperatures", None) is None:
        return ()
    try:
        grid = TokenGrid.of(run.records)
    except ValueError:  # some have none, or another grid
        return ()
    curves = (grid.temperatures, grid.nll(), grid.full_ece(), grid.acc())
    return tuple(AtTemperature(*map(float, row)) for row in zip(*curves, strict=True))


def _recalibrated(run: Run, tasks: Sequence[str]) -> Recalibrated | None:
    """Return what a map fitted on other folds does; None where it can't be fitted."""
    try:
        docs = run.recalibration_docs(tasks)
    except ValueError:  # docs with choices, and docs without
        return None
    method = "temperature" if docs.confidence is None else "platt"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crossed = cross_fit(method, docs)
    notes = tuple(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, RecalibrationWarning)))
    if len(docs) - np.bincount(crossed.fold).max() < MIN_FIT_DOCS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # undefined values are shown as such
        names = CHANGED if method == "temperature" else [name for name in CHANGED if name not in OF_ORDER]
        changes = before_after(docs.forecasts, crossed.forecasts, names=names, n_bins=run.n_bins)
    maps: list[Any] = [one for fold in crossed.maps.values() for one in fold.maps.values()]
    temperatures = [one.temperature or math.nan for one in maps if isinstance(one, Temperature)]
    temperature = float(np.mean(temperatures)) if temperatures else math.nan
    after = prepare_reliability(crossed.forecasts.confidence, crossed.forecasts.correct, n_bins=run.n_bins)
    return Recalibrated(method, temperature, tuple(changes), after, notes)
