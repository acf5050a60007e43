"""What the command prints: tables on a terminal, tab-separated lines with a head for other programs."""

import sys
from collections.abc import Sequence

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lm_eval_calibration.metrics import CATALOG, StratumMetric, by_stratum
from lm_eval_calibration.recalibration import Change, Domain, Forecasts, MapByGroup, OperatingPoint, Temperature

_WIDEST = 120


def print_changes(title: str, changes: Sequence[Change]) -> None:
    """Print metrics before and after."""
    heads = ("metric", "before", "after", "change", "95% interval", "")
    rows = [
        (c.name + _arrow(c), _number(c.before), _number(c.after), _signed(c.change), _interval(c), c.verdict)
        for c in changes
    ]
    _print(title, heads, rows)


def print_domains(domains: Sequence[Domain], fitted: MapByGroup, for_all: MapByGroup) -> None:
    """Print one map for all against one for each group."""
    heads = ("group", "docs", "T", "metric", "no map", "one for all", "its own", "95% of the change", "")
    rows = []
    for domain in domains:
        temperature = _temperature(for_all, "") if domain.name == "all" else _temperature(fitted, domain.name)
        for name, change in domain.changes.items():
            values = map(_number, (domain.unchanged[name], change.before, change.after))
            rows.append(
                (domain.name, str(domain.n_docs), temperature, name, *values, _interval(change), change.verdict)
            )
    _print("one map for all docs, or one for each group? (cross-fitted; change: its own less one for all)", heads, rows)


def print_strata(
    before: Forecasts, after: Forecasts, strata: NDArray[np.str_], names: tuple[str, ...], n_bins: int
) -> None:
    """Print metrics within each group, before and after, and whether the group differs from the other docs."""
    shown = ["acc", *(name for name in names if before.has(CATALOG[name]))]
    mapped = ["acc", *(name for name in shown[1:] if after.has(CATALOG[name]))]
    found = {(m.stratum, m.name): m for m in by_stratum(after.run, strata, names=mapped, n_bins=n_bins)}
    rows = []
    for m in by_stratum(before.run, strata, names=shown, n_bins=n_bins):
        versus = (f"{m.difference:+.4f}", f"{m.p_adjusted:.2g}")
        one, other = _with_interval(m), _with_interval(found.get((m.stratum, m.name)))
        rows.append((m.stratum, str(m.n_docs), m.name, one, *versus, other))
    heads = ("group", "docs", "metric", "before [95%]", "less the other docs'", "p (Holm)", "after [95%]")
    n_groups = len(np.unique(strata))
    _print(f"within each group, pooled; p before the map, adjusted over {n_groups} groups", heads, rows)


def print_operating_point(point: OperatingPoint) -> None:
    """Print what answering from a threshold on would give."""
    coverage, error = (f"{s:.3f} [{low:.3f}, {high:.3f}]" for s, low, high in (point.coverage, point.error_rate))
    heads = ("wanted error rate", "threshold", "answered", "coverage [95%]", "error rate [95%]")
    row = (f"{point.wanted:g}", _number(point.threshold), f"{point.n_answered} of {point.n_docs}", coverage, error)
    _print("answer or abstain, judged on docs the threshold was not chosen on", heads, [row])


def say(line: str) -> None:
    """Print a line about what was done."""
    typer.echo(line if sys.stdout.isatty() else f"# {line}")


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    say(title)
    if not sys.stdout.isatty():
        typer.echo("\n".join("\t".join(row) for row in [heads, *rows]))
        return
    table = Table(box=None, header_style="bold")
    for head in heads:
        table.add_column(head, justify="left" if head in ("group", "metric", "") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, _WIDEST)  # a wrapped line is better than a number cut short
    console.print(table)


def _temperature(fitted: MapByGroup, group: str) -> str:
    group_map = fitted.maps[group]
    return _number(group_map.temperature or np.nan) if isinstance(group_map, Temperature) else ""


def _arrow(change: Change) -> str:
    return {True: " ↑", False: " ↓", None: " →0"}[change.higher_is_better] if sys.stdout.isatty() else ""


def _number(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _interval(change: Change) -> str:
    return f"[{change.low:+.4f}, {change.high:+.4f}]"


def _with_interval(found: StratumMetric | None) -> str:
    return "" if found is None else f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
