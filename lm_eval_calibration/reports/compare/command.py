"""``lm-eval-calibration compare``: read the runs, make the table, print or write it."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.compare.formats import FORMATS, SUFFIXES
from lm_eval_calibration.reports.compare.table import DEFAULT_METRICS, OF_ANSWERS, make_table
from lm_eval_calibration.results import Run, load_run
from lm_eval_calibration.results.differences import METRICS
from lm_eval_calibration.results.identity import fingerprint, labels


def compare(
    results: Sequence[str],
    *,
    metrics: str | None,
    tasks: Sequence[str],
    n_bins: int | None,
    form: str | None,
    output: Path | None,
) -> None:
    """Print or write the table of some runs.

    Args:
        results: folders or files of runs, each PATH or NAME=PATH.
        metrics: names, separated by commas; the core ones of such docs where not given.
        tasks: those to show; all that the runs have in common where there are none.
        n_bins: bins of the binned metrics; those of the runs where not given.
        form: name of a format; by the output's suffix where not given.
        output: file to write.
    """
    form = form or (SUFFIXES.get(output.suffix, "") if output is not None else "table")
    if form not in FORMATS:
        what = f"no format {form!r}" if form else f"{output}: no format is known by its suffix"
        raise UserError(f"{what}; there are {', '.join(FORMATS)}")
    if form == "png" and output is None:
        raise UserError("a PNG is no text: give --output FILE")
    names = [name.strip() for name in metrics.split(",")] if metrics is not None else []
    for name in names:
        if name not in METRICS:
            raise UserError(f"no metric {name!r}; there are {', '.join(METRICS)}")
    runs = read_runs(results, n_bins)
    names = names or _core_metrics(list(runs.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is undefined says so in its cell
        table = make_table(runs, names, tasks or None, progress=_progress)
        content = FORMATS[form](table)
    if output is not None:
        write_whole(output, content)
        typer.echo(f"{len(runs)} runs, {len(table.scopes)} tables: {output}", err=True)
    else:
        typer.echo(content, nl=False)


def read_runs(results: Sequence[str], n_bins: int | None) -> dict[str, Run]:
    """Read the runs, by label.

    Raises:
        UserError: fewer than two, the same one twice, the same name twice, or other numbers of bins.
    """
    if len(results) < 2:
        raise UserError("compare needs two runs at least")
    names, paths = zip(*map(_name_and_path, results), strict=True)
    runs = [load_run(path, n_bins=n_bins) for path in paths]
    known: dict[str, Path] = {}
    for run, path in zip(runs, paths, strict=True):
        if (digest := fingerprint(run)) in known:
            raise UserError(f"{known[digest]} and {path} hold the same run")
        known[digest] = path
    if len({run.n_bins for run in runs}) > 1:
        listed = ", ".join(f"{run.n_bins} in {path}" for run, path in zip(runs, paths, strict=True))
        raise UserError(f"the runs have other numbers of bins ({listed}): --n_bins computes all alike")
    given = [name or label for name, label in zip(names, labels(runs), strict=True)]
    if len(set(given)) < len(given):
        raise UserError(f"two runs have the same name ({', '.join(given)}): give others as NAME=PATH")
    return dict(zip(given, runs, strict=True))


def _name_and_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    return ("", Path(text)) if not equals or not name or Path(text).exists() else (name, Path(path))


def _core_metrics(runs: Sequence[Run]) -> list[str]:
    """The core metrics that some doc of the runs has."""
    names = DEFAULT_METRICS if any("multiple_choice" in run.kinds() for run in runs) else OF_ANSWERS
    without = () if any(_has(run, "full_vocabulary") for run in runs) else ("full_ece",)
    return [name for name in names if name not in without]


def _has(run: Run, kind: str) -> bool:
    try:
        run.arrays(kind)
    except ValueError:
        return False
    return True


def _progress(pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    from tqdm import tqdm

    bar: Sequence[tuple[str, str]] = tqdm(pairs, desc="Comparing", unit="pair", delay=2, leave=False)
    return bar
