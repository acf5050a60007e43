"""``lm-eval-calibration evidence``: make a statement, or verify one."""

import json
from pathlib import Path
from typing import Any

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.evidence.statement import digest, make_statement
from lm_eval_calibration.reports.numbers import json_text
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.reports.runs import print_notes
from lm_eval_calibration.reports.sentences import BINNED_INTERVALS
from lm_eval_calibration.results import Selection, load_run
from lm_eval_calibration.results.identity import files_of, sha256

TEMPLATE = Path(__file__).with_name("statement.html")


def make(
    result: Path,
    *,
    output: Path,
    domain: str | None,
    n_bins: int | None,
    cluster: str | None,
    select: Selection,
) -> None:
    """Write the statement as JSON and as a page for print, side by side; the arguments are the command's."""
    if output.suffix not in ("", ".json", ".html"):
        raise UserError(f"{output}: a statement is written as NAME.json and NAME.html")
    run = load_run(result, n_bins=n_bins, cluster=cluster, select=select, is_strict=True)
    print_notes(run)
    statement = make_statement(run, domain)
    data, page = output.with_suffix(".json"), output.with_suffix(".html")
    title = f"Quantified uncertainty: {statement['content']['domain']}"
    rendered = render_page(
        TEMPLATE,
        title=title,
        digest=statement["sha256"],
        data_file=data.name,
        binned_intervals=BINNED_INTERVALS,
        **statement,
    )
    write_whole(data, json_text(statement))
    write_whole(page, rendered)
    typer.echo(f"{data} and {page}, sha256 of the content {statement['sha256']}")


def verify(path: Path, result: Path | None, select: Selection) -> None:
    """Check that a statement is unchanged and, where the run is given, that its files are the ones named.

    Raises:
        UserError: what is wrong, and where.
    """
    try:
        statement: Any = json.loads(path.read_text(encoding="utf-8"))
        content, stated = statement["content"], statement["sha256"]
        files = {file["sha256"]: file["name"] for file in content["files"]}
        found = digest(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no statement of this command: {error!r}") from error
    if found != stated:
        raise UserError(f"{path}: its content was changed and now has sha256 {found}, not {stated}")
    confirmed = f"{path}: content unchanged (sha256 {stated})"
    if result is not None:
        digests = {sha256(file): file for file in files_of(load_run(result, select=select))}
        if missing := [name for digest_, name in files.items() if digest_ not in digests]:
            raise UserError(f"{path}: {result} does not hold the files it was made from: {', '.join(missing)}")
        if other := [str(file) for digest_, file in digests.items() if digest_ not in files]:
            raise UserError(f"{path} was not made from {', '.join(other)}")
        confirmed += f"; {len(files)} files are those it was made from"
    typer.echo(confirmed)
