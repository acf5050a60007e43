"""``--format`` and ``--output``: which format is meant, and where the content goes."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole

BINARY = ("png", "pdf")


def choose_format(
    form: str | None,
    output: Path | None,
    formats: Iterable[str],
    *,
    default: str = "",
    suffixes: Mapping[str, str] | None = None,
) -> str:
    """Return the format that is named, or else that of the output's suffix, or else the default.

    Args:
        form: what was given by ``--format``.
        output: what was given by ``--output``.
        formats: names of all formats.
        default: where neither is given.
        suffixes: suffixes that are not the format's own name, such as ``tex`` to ``latex``.

    Raises:
        UserError: no such format, or one that can't be printed without a file to write to.
    """
    known = list(formats)
    suffix = output.suffix.removeprefix(".").lower() if output is not None else ""
    chosen = form or ((suffixes or {}).get(suffix, suffix) if output is not None else default)
    if chosen not in known:
        what = f"no format {form!r}" if form else f"{output}: no format is known by its suffix"
        raise UserError(f"{what}; there are {', '.join(known)}")
    if chosen in BINARY and output is None:
        raise UserError(f"a {chosen.upper()} can't be printed: give --output FILE")
    return chosen


def echo_next(arguments: Iterable[str | Path], output: str, shows: str) -> None:
    """Say on standard error what to run next: the report of what a command was given."""
    named = " ".join(shlex.quote(str(one)) for one in arguments)
    typer.echo(f"Next: lm-eval-calibration report {named} --output {output} ({shows})", err=True)


def print_or_write(content: str | bytes, output: Path | None, summary: str) -> None:
    """Print the content, or write it to the output and say so on standard error."""
    if output is None:
        typer.echo(content, nl=False)
    else:
        write_whole(output, content)
        typer.echo(f"{summary}: {output}", err=True)
