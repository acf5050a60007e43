"""``lm-eval-calibration compare``: read the runs, make the table, print or write it."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.compare.formats import FORMATS, SUFFIXES, html
from lm_eval_calibration.reports.compare.many import make_table_of_many
from lm_eval_calibration.reports.compare.measuring import Plan
from lm_eval_calibration.reports.compare.side_by_side import MOST_CURVES, SideBySide, side_by_side
from lm_eval_calibration.reports.compare.table import default_metrics, make_table
from lm_eval_calibration.reports.formats import choose_format, echo_next, print_or_write
from lm_eval_calibration.reports.runs import by_name, name_and_path, print_notes
from lm_eval_calibration.results import Run, Selection
from lm_eval_calibration.results.columns import parse_metrics
from lm_eval_calibration.results.identity import are_same_files, labels
from lm_eval_calibration.results.loading import FoundRun, find_run, find_runs

MANY_RUNS = 30
"""With more runs than this, each is tested against the best alone, and none is kept in memory."""


def compare(
    results: Sequence[str],
    *,
    select: Selection,
    metrics: str | None,
    tasks: Sequence[str],
    n_bins: int | None,
    cluster: str | None,
    form: str | None,
    output: Path | None,
) -> None:
    """Print or write the table of some runs; the arguments are the command's."""
    form = choose_format(form, output, FORMATS, default="table", suffixes=SUFFIXES)
    names = parse_metrics(metrics) if metrics is not None else []
    given, found = find_named(results, select)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is undefined says so in its cell
        beside: SideBySide | None = None
        if len(found) > MANY_RUNS:
            table = make_table_of_many(found, given, Plan({}, {}, tuple(names), n_bins, cluster), tasks)
        else:
            runs = read_runs(given, found, n_bins, cluster)
            print_notes(*runs.values())
            names = names or default_metrics(list(runs.values()))
            table = make_table(runs, names, tasks)
            beside = side_by_side(runs, table, redact=True) if form == "html" else None
        content = html(table, beside) if form == "html" else FORMATS[form](table)
    print_or_write(content, output, f"{len(table.labels)} runs, {counted(len(table.scopes), what='tables')}")
    if output is None and form == "table" and 1 < len(results) <= MOST_CURVES:
        echo_next(results, "report.html", "curves on the same axes, docs that changed sides")


def find_named(results: Sequence[str], select: Selection) -> tuple[list[str], list[FoundRun]]:
    """Return the names and the runs that arguments of the command mean; one folder means all, or each model's latest.

    Raises:
        UserError: fewer than two.
    """
    if len(results) == 1:
        found = find_runs(name_and_path(results[0])[1], select=replace(select, latest=False))
        if select.latest:
            found = list({one.sources[0].model: one for one in found}.values())
        names = [""] * len(found)
    else:
        names, paths = map(list, zip(*map(name_and_path, results), strict=True)) if results else ([], [])
        found = [find_run(path, select=select) for path in paths]
    if len(found) < 2:
        raise UserError("compare needs two runs at least")
    return names, found


def read_runs(
    names: Sequence[str], found: Sequence[FoundRun], n_bins: int | None, cluster: str | None = None
) -> dict[str, Run]:
    """Read the runs, by label.

    Raises:
        UserError: one run or one name twice, or different numbers of bins.
    """
    runs = [one.load(n_bins, cluster) for one in found]
    places = [one.place for one in found]
    for (run, place), (other, other_place) in combinations(zip(runs, places, strict=True), 2):
        if are_same_files(run, other):
            raise UserError(f"{place} and {other_place} are the same files")
    if len({run.n_bins for run in runs}) > 1:
        listed = ", ".join(f"{run.n_bins} in {place}" for run, place in zip(runs, places, strict=True))
        raise UserError(f"the runs have different numbers of bins ({listed}): --n_bins computes all alike")
    return by_name([name or label for name, label in zip(names, labels(runs), strict=True)], runs)
