"""``lm-eval-calibration compare``: read the runs, make the table, print or write it."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.compare.formats import FORMATS, SUFFIXES, html
from lm_eval_calibration.reports.compare.many import make_table_of_many
from lm_eval_calibration.reports.compare.measuring import Plan
from lm_eval_calibration.reports.compare.side_by_side import MOST_CURVES, SideBySide, side_by_side
from lm_eval_calibration.reports.compare.table import default_metrics, make_table
from lm_eval_calibration.reports.formats import choose_format, echo_next, print_or_write
from lm_eval_calibration.reports.runs import find_named, print_notes, read_runs
from lm_eval_calibration.results import Selection
from lm_eval_calibration.results.columns import parse_metrics

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
            runs = read_runs(given, found, n_bins, cluster, is_strict=len(results) > 1)
            print_notes(*runs.values())
            names = names or default_metrics(list(runs.values()))
            table = make_table(runs, names, tasks)
            beside = side_by_side(runs, table, redact=True) if form == "html" else None
        content = html(table, beside) if form == "html" else FORMATS[form](table)
    print_or_write(content, output, f"{len(table.labels)} runs, {counted(len(table.scopes), what='tables')}")
    if output is None and form == "table" and 1 < len(results) <= MOST_CURVES:
        echo_next(results, "report.html", "curves on the same axes, docs that changed sides")
