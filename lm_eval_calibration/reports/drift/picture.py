"""The history as a picture or a page: each metric over time, with intervals, tolerances, and what had drifted."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.drawing import draw_history
from lm_eval_calibration.plots.history import MetricHistory, time_ticks
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.plots.trade_off import ticks
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.drift.history import Entry
from lm_eval_calibration.reports.formats import PICTURES, listed
from lm_eval_calibration.reports.names import task_name
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.results.columns import DIRECTIONS, metric_of
from lm_eval_calibration.results.differences import POOLED

TEMPLATE = Path(__file__).with_name("history.html")

MOST_TASKS = 8
"""Tasks that a picture shows; the page has all."""

LATEST = 5
"""Runs whose newly wrong docs are shown."""


def prepare_history(entries: Sequence[Entry], scope: str = POOLED) -> list[MetricHistory]:
    """Return metrics of a task or group in each run, in order of time; by default of all docs together."""
    points: dict[str, list[tuple[datetime, float, float, float, bool, float]]] = {}
    bases = {entry.run: entry for entry in entries}
    for entry in sorted(entries, key=lambda entry: entry.date):
        date, base = datetime.fromisoformat(entry.date), bases.get(entry.base)
        for metric, numbers in values_of(entry, scope).items():
            if None not in numbers:
                value, low, high = (float(x) for x in numbers if x is not None)
                drifted = _has_drifted(entry, scope, metric)
                limit = math.nan if base is None else _limit(metric, values_of(base, scope), entry.tolerances)
                points.setdefault(metric, []).append((date, value, low, high, drifted, limit))
    return [
        MetricHistory(metric, DIRECTIONS[metric_of(metric).higher_is_better], *map(tuple, zip(*of_metric, strict=True)))
        for metric, of_metric in points.items()
    ]


def values_of(entry: Entry, scope: str = POOLED) -> dict[str, list[float | None]]:
    """Return values of a task or group; of all docs where there is one task alone those of it."""
    if scope == POOLED and len(entry.values) == 1:
        return next(iter(entry.values.values()))
    return entry.values.get(scope, {})


def scopes_of(entries: Sequence[Entry]) -> list[str]:
    """Return the tasks and groups of the history, those that had drifted last first; not all docs together."""
    names = list(dict.fromkeys(scope for entry in entries for scope in entry.values if scope != POOLED))
    when = {
        name.rpartition(" ")[0]: entry.date for entry in sorted(entries, key=lambda e: e.date) for name in entry.drifted
    }
    return sorted(names, key=lambda name: when.get(name, ""), reverse=True) if len(names) > 1 else []


def _has_drifted(entry: Entry, scope: str, metric: str) -> bool:
    """Whether it had in these docs; of all docs together in any task."""
    of = [name.rpartition(" ") for name in entry.drifted]
    return any(name == metric and scope in (POOLED, task) for task, _, name in of)


def _limit(metric: str, base: dict[str, list[float | None]], tolerances: dict[str, float]) -> float:
    """The base run's value worsened by the tolerance; nan where either is unknown."""
    value = (base.get(metric) or [None])[0]
    if value is None or metric not in tolerances:
        return math.nan
    higher_is_better = metric_of(metric).higher_is_better
    away = -1 if higher_is_better or (higher_is_better is None and value < 0) else 1
    return value + away * tolerances[metric]


def panels_of(entries: Sequence[Entry]) -> list[MetricHistory]:
    """Return what a file without folds shows: all docs together, then the tasks, those that had drifted last first."""
    scopes = scopes_of(entries)
    if not scopes:
        return prepare_history(entries)
    return [
        panel._replace(metric=f"{task_name(scope)}: {panel.metric}")
        for scope in (POOLED, *scopes[:MOST_TASKS])
        for panel in prepare_history(entries, scope)
    ]


def write_picture(path: Path, entries: Sequence[Entry]) -> None:
    """Write the history's picture: .svg, .png, .pdf, or .html with a table of the runs and every task."""
    form = path.suffix.removeprefix(".")
    if form not in ("html", *PICTURES):
        raise UserError(f"{path}: a picture is a file {listed('html')}")
    if form != "html":
        write_whole(path, draw_history(panels_of(entries), cast(Form, form)))
        return
    ordered = sorted(entries, key=lambda entry: entry.date)
    page = render_page(
        TEMPLATE,
        title="Calibration over time",
        entries=ordered,
        panels=prepare_history(entries),
        tasks={scope: prepare_history(entries, scope) for scope in scopes_of(entries)},
        values=values_of,
        time_ticks=time_ticks,
        ticks=ticks,
        worst=[entry for entry in ordered[::-1] if entry.newly_wrong][:LATEST],
    )
    write_whole(path, page)
