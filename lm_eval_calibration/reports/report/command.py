"""``lm-eval-calibration report``: read a run, work out what it shows, write the file."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import typer

from lm_eval_calibration.harness.redacted_errors import redacted_errors
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.compare.together import together
from lm_eval_calibration.reports.formats import choose_format
from lm_eval_calibration.reports.report.content import make_report
from lm_eval_calibration.reports.report.formats import FORMATS
from lm_eval_calibration.reports.runs import find_named, name_and_path, print_notes, read_runs
from lm_eval_calibration.results import Run, Selection
from lm_eval_calibration.results.files import find_sources
from lm_eval_calibration.results.loading import FoundRun
from lm_eval_calibration.results.selection import one_run, runs_of


def write_report(
    results: Sequence[str],
    output: Path | None,
    *,
    format_: str | None,
    n_bins: int | None,
    cluster: str | None,
    select: Selection,
    redact: bool,
) -> None:
    """Write the report of a run, or of several side by side; the arguments are the command's.

    Without an output it is ``report`` with the format's suffix.

    Raises:
        UserError: what can't be read or written, or no such format.
    """
    form = choose_format(format_, output, FORMATS, default="html", is_printed=False)
    output = output or Path(f"report.{form}")
    names, paths = zip(*map(name_and_path, results), strict=True)
    found = find_sources(paths, select.columns)  # an error in this one holds no text of a doc
    with redacted_errors() if redact else nullcontext():
        sources = select.of(found.sources)
        if len(paths) > 1 and (any(names) or len(runs_of(sources)) > 1):
            runs = read_runs(*find_named(results, select), n_bins, cluster)
            print_notes(*runs.values())
            content, done = together(runs, form, redact=redact), f"{len(runs)} runs side by side"
        else:
            run = FoundRun(one_run(sources, paths), found.broken).load(n_bins, cluster)
            content, done = _of_one(run, form, redact=redact)
    write_whole(output, content)
    typer.echo(f"{done}; the report is in {output}")


def _of_one(run: Run, form: str, *, redact: bool) -> tuple[str | bytes, str]:
    print_notes(run)
    content = FORMATS[form](make_report(run, redact=redact, explorable=form == "html"))
    return content, f"{counted(len(run))} of {counted(len(run.tasks), what='tasks')}"
