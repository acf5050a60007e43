"""``lm-eval-calibration compare``: read the runs, make the table, print or write it."""

import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.compare.formats import FORMATS, SUFFIXES, html
from lm_eval_calibration.reports.compare.side_by_side import side_by_side
from lm_eval_calibration.reports.compare.table import make_table
from lm_eval_calibration.reports.formats import choose_format, print_or_write
from lm_eval_calibration.reports.runs import by_name, has_distributions, name_and_path, print_notes
from lm_eval_calibration.results import Run, Selection, load_run
from lm_eval_calibration.results.columns import columns, parse_metrics
from lm_eval_calibration.results.identity import are_same_files, labels
from lm_eval_calibration.results.selection import ALL


def compare(
    results: Sequence[str],
    *,
    select: Selection = ALL,
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
    runs = read_runs(results, n_bins, cluster, select)
    for run in runs.values():
        print_notes(run)
    names = names or default_metrics(list(runs.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is undefined says so in its cell
        table = make_table(runs, names, tasks or None, progress=_progress)
        content = html(table, side_by_side(runs, table, redact=True)) if form == "html" else FORMATS[form](table)
    print_or_write(content, output, f"{len(runs)} runs, {len(table.scopes)} tables")


def read_runs(
    results: Sequence[str], n_bins: int | None, cluster: str | None = None, select: Selection = ALL
) -> dict[str, Run]:
    """Read the runs, by label.

    Raises:
        UserError: fewer than two, one run or one name twice, or different numbers of bins.
    """
    if len(results) < 2:
        raise UserError("compare needs two runs at least")
    names, paths = zip(*map(name_and_path, results), strict=True)
    runs = [load_run(path, n_bins=n_bins, cluster=cluster, select=select) for path in paths]
    for (run, path), (other, other_path) in combinations(zip(runs, paths, strict=True), 2):
        if are_same_files(run, other):
            raise UserError(f"{path} and {other_path} are the same files")
    if len({run.n_bins for run in runs}) > 1:
        listed = ", ".join(f"{run.n_bins} in {path}" for run, path in zip(runs, paths, strict=True))
        raise UserError(f"the runs have different numbers of bins ({listed}): --n_bins computes all alike")
    return by_name([name or label for name, label in zip(names, labels(runs), strict=True)], runs)


def default_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics that compare shows by default, as far as some doc of the runs has them."""
    has_choices = any("multiple_choice" in run.kinds() for run in runs)
    names = columns("compare" if has_choices else "compare: generated answers")
    return [name for name in names if name != "full_ece" or any(map(has_distributions, runs))]


def _progress(pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    from tqdm import tqdm

    bar: Sequence[tuple[str, str]] = tqdm(pairs, desc="Comparing", unit="pair", delay=2, leave=False)
    return bar
