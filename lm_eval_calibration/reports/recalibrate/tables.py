"""What the command prints: tables on a terminal, tab-separated lines with a head for other programs."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from lm_eval_calibration.metrics import StratumMetric, by_stratum
from lm_eval_calibration.metrics.comparison import comparable
from lm_eval_calibration.metrics.fields import Fields
from lm_eval_calibration.metrics.group_errors import GroupError, group_errors
from lm_eval_calibration.recalibration import Change, Domain, Forecasts, MapByGroup, OperatingPoint, Temperature
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.groups import MOST_ROWS
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import NOTHING, estimate, interval, number, p_value, signed
from lm_eval_calibration.reports.tables import plain_table
from lm_eval_calibration.results.columns import ACC, ARROWS, columns

ANSWERS = ("ece", "brier_score", "brier_top_label")
"""Metrics that say whether a map helps, as far as the docs have them."""


def print_changes(title: str, changes: Sequence[Change]) -> None:
    """Print metrics before and after."""
    heads = ("metric", "before", "after", "change", "95% interval", "")
    rows = [(_name(c), number(c.before), number(c.after), signed(c.change), _interval(c), c.verdict) for c in changes]
    _print(title, heads, rows)


def print_domains(domains: Sequence[Domain], fitted: MapByGroup, for_all: MapByGroup) -> None:
    """Print one map for all against one for each group."""
    heads = ("group", "docs", "T", "metric", "no map", "one for all", "its own", "95% of the change", "")
    rows = []
    for domain in domains:
        temperature = _temperature(for_all, "") if domain.name == "all" else _temperature(fitted, domain.name)
        for name, change in domain.changes.items():
            values = map(number, (domain.unchanged[name], change.before, change.after))
            rows.append(
                (shown(domain.name), str(domain.n_docs), temperature, name, *values, _interval(change), change.verdict)
            )
    _print("one map for all docs, or one for each group? (cross-fitted; change: its own less one for all)", heads, rows)


def print_strata(before: Forecasts, after: Forecasts, strata: NDArray[np.str_], n_bins: int) -> None:
    """Print metrics within each group, before and after, and whether the group differs from the other docs."""
    names = (ACC, *columns("recalibrate: each group"))
    how: dict[str, Any] = {"n_bins": n_bins, "cluster": before.cluster}
    used, mapped = ([name for name in names if name in comparable(run, run)] for run in (before.run, after.run))
    found = {(m.stratum, m.name): m for m in by_stratum(after.run, strata, names=mapped, **how)}
    rows = []
    for m in by_stratum(before.run, strata, names=used, **how):
        versus = (signed(m.difference), p_value(m.p_adjusted))
        one, other = _with_interval(m), _with_interval(found.get((m.stratum, m.name)))
        rows.append((shown(m.stratum), str(m.n_docs), m.name, one, *versus, other))
    heads = ("group", "docs", "metric", "before [95%]", "less the other docs'", "p (Holm)", "after [95%]")
    n_groups = counted(len(np.unique(strata)), what="groups")
    _print(f"within each group, pooled; p before the map, adjusted over {n_groups}", heads, rows)


def print_groups(before: Forecasts, after: Forecasts, fields: Fields, n_bins: int) -> None:
    """Print confidence less accuracy of the groups with the largest errors, before and after, and the largest."""
    one, other = (
        group_errors(docs.confidence, docs.correct, fields, n_bins=n_bins, cluster=docs.cluster)
        for docs in (before, after)
    )
    mapped = {found.group: found for found in other.groups}
    rows = [(found.name, str(found.n_docs), *_error(found), *_error(mapped[found.group])) for found in one.groups]
    heads = ("group", "docs", "before [95%, all at once]", "", "after [95%, all at once]", "")
    _print("confidence less accuracy in groups, the largest errors first (maps held fixed)", heads, rows[:MOST_ROWS])
    n_groups = counted(len(one.groups), what="groups")
    say(f"largest error of {n_groups}: {estimate(one.largest)} before, {estimate(other.largest)} after")
    n_off = (sum(bool(found.tendency) for found in (*docs.groups, *docs.bins)) for docs in (one, other))
    say("groups and ranges of confidence within groups that are shown to be off: {} before, {} after".format(*n_off))


def _error(found: GroupError) -> tuple[str, str]:
    return f"{signed(found.gap)} {interval(found.low, found.high, '+.4f')}", found.tendency


def print_operating_point(point: OperatingPoint) -> None:
    """Print what answering from a threshold on would give, and how that compares with what was wanted."""
    shares = (point.coverage, point.error_rate)
    coverage, error = (f"{number(share, 3)} {interval(low, high, '.3f')}" for share, low, high in shares)
    heads = ("wanted error rate", "threshold", "answered", "coverage [95%]", "error rate [95%]", "at most (95% sure)")
    answered, bound = f"{point.n_answered} of {point.n_docs}", number(point.error_bound, 3)
    threshold = number(point.threshold) if math.isfinite(point.threshold) else "none"
    row = (f"{point.wanted:g}", threshold, answered, coverage, error if point.n_answered else NOTHING, bound)
    _print("answer or abstain, tested on docs the threshold was not chosen on", heads, [row])
    say(operating_point_sentence(point))


def operating_point_sentence(point: OperatingPoint) -> str:
    """Return whether the error rate that was wanted is met; the threshold is one of confidence after the map."""
    wanted = f"the error rate of {point.wanted:g} that was wanted"
    if not point.n_answered:
        return f"nothing is answered: no answer has a confidence, after the map, that keeps {wanted}"
    rate, low, _ = point.error_rate
    what = f"from this confidence on, after the map, {number(rate, 3)} of {counted(point.n_answered, None, 'answers')}"
    are = f"{what} {'is' if point.n_answered == 1 else 'are'} wrong"
    if rate <= point.wanted:
        return f"{are}, no more than {wanted}; on other docs it may be up to {number(point.error_bound, 3)}"
    shown = "more than chance explains" if low > point.wanted else "which may be chance"
    return f"{are}: more than {wanted}, {shown}"


def print_answer(changes: Sequence[Change]) -> None:
    """Print in a sentence whether the map helps: what became of calibration and of the proper score."""
    told = {c.name: c for c in changes if c.name in ANSWERS}
    parts = [
        f"{c.name} {number(c.before)} -> {number(c.after)} ({c.verdict or 'no clear change'})" for c in told.values()
    ]
    verdicts = {c.verdict for c in told.values()}
    worse, better = "worse" in verdicts, "better" in verdicts
    helps = "better and worse" if worse and better else "worse" if worse else "better" if better else "no clear change"
    say(f"With the map, on docs that it was not fitted on: {helps}. {', '.join(parts)}")


def say(line: str) -> None:
    """Print a line about what was done."""
    typer.echo(line if sys.stdout.isatty() else f"# {line}")


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    say(title)
    typer.echo("\n".join(plain_table(heads, rows)))


def _temperature(fitted: MapByGroup, group: str) -> str:
    group_map = fitted.maps[group]
    return number(group_map.temperature or np.nan) if isinstance(group_map, Temperature) else ""


def _name(change: Change) -> str:
    return f"{change.name} {ARROWS[change.higher_is_better]}" if sys.stdout.isatty() else change.name


def _interval(change: Change) -> str:
    return interval(change.low, change.high, "+.4f")


def _with_interval(found: StratumMetric | None) -> str:
    return "" if found is None else f"{number(found.value)} {interval(found.low, found.high)}"
