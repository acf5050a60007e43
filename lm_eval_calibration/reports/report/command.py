"""``lm-eval-calibration report``: read a run, work out what it shows, write the file."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import typer

from lm_eval_calibration.harness.redacted_errors import redacted_errors
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.formats import choose_format
from lm_eval_calibration.reports.report.content import make_report
from lm_eval_calibration.reports.report.formats import FORMATS
from lm_eval_calibration.reports.runs import print_notes
from lm_eval_calibration.results import Selection, load_run
from lm_eval_calibration.results.files import find_sources
from lm_eval_calibration.results.selection import ALL


def write_report(
    results: Sequence[Path],
    output: Path,
    *,
    format_: str | None = None,
    n_bins: int | None = None,
    cluster: str | None = None,
    select: Selection = ALL,
    redact: bool = False,
) -> None:
    """Write the report of a run; the arguments are the command's.

    Raises:
        UserError: what can't be read or written, or no such format.
    """
    form = choose_format(format_, output, FORMATS)
    find_sources(results, select.columns)  # an error in this one holds no text of a doc
    with redacted_errors() if redact else nullcontext():
        run = load_run(*results, n_bins=n_bins, cluster=cluster, select=select)
        print_notes(run)
        report = FORMATS[form](make_report(run, redact=redact, explorable=form == "html"))
    write_whole(output, report)
    typer.echo(f"{len(run):,} docs of {len(run.tasks)} tasks; the report is in {output}")
