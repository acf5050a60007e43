"""``--format`` and ``--output``: which format is meant, and where the content goes."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import typer

from lm_eval_calibration.errors import UserError

PICTURES = ("svg", "png", "pdf")
"""Formats of a picture, of every command that draws one."""

BINARY = ("png", "pdf")


def pictures(draw: Callable[..., bytes]) -> dict[str, Callable[..., bytes]]:
    """Return functions by the name of the picture's format; each calls one that has the argument ``form``."""
    return {form: partial(draw, form=form) for form in PICTURES}


def listed(*formats: str) -> str:
    """Return formats as a help text lists them, those of pictures last: "md, json, svg, png or pdf"."""
    *first, last = (*formats, *PICTURES)
    return f"{', '.join(first)} or {last}"


def choose_format(
    form: str | None,
    output: Path | None,
    formats: Iterable[str],
    *,
    default: str = "",
    suffixes: Mapping[str, str] | None = None,
    is_printed: bool = True,
) -> str:
    """Return the format that is named, or else that of the output's suffix, or else the default.

    Args:
        form: what was given by ``--format``.
        output: what was given by ``--output``.
        formats: names of all formats.
        default: where neither is given.
        is_printed: whether it is printed where there is no output.
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
    if chosen in BINARY and output is None and is_printed:
        raise UserError(f"a {chosen.upper()} can't be printed: give --output FILE")
    return chosen


def echo_next(arguments: Iterable[str | Path], output: str, shows: str) -> None:
    """Say on standard error what to run next: the report of what a command was given."""
    named = " ".join(shlex.quote(str(one)) for one in arguments)
    typer.echo(f"Next: lm-eval-calibration report {named} --output {output} ({shows})", err=True)


def print_or_write(content: str | bytes, output: Path | None, summary: str) -> None:
    """Print the content, or write it to the output and say so on standard error."""
    from lm_eval_calibration.records.files import write_whole

    if output is None:
        typer.echo(content, nl=False)
    else:
        write_whole(output, content)
        typer.echo(f"{summary}: {output}", err=True)
