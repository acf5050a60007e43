"""``--rename OLD=NEW``, of every command that shows names of models or tasks."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from lm_eval_calibration.reports.names import parse_renames, renamed, without_a_match

Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="Show a model, task or group by another name. Repeatable."),
]


def with_rename(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with the option, which holds while the command runs; a name that is nowhere is noted."""

    @wraps(command)
    def renaming(*arguments: Any, rename: list[str] | None = None, **options: Any) -> Any:
        names = parse_renames(rename or [])
        with renamed(names):
            try:
                done = command(*arguments, **options)
            except typer.Exit:  # the end of a command that says something by its exit code
                _note(names)
                raise
            _note(names)
            return done

    signature = inspect.signature(command)
    option = inspect.Parameter("rename", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Rename)
    renaming.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    renaming.__annotations__ = {**command.__annotations__, "rename": Rename}
    return renaming


def _note(names: Mapping[str, str]) -> None:
    """Say on standard error which names are nowhere."""
    from lm_eval_calibration.records.display import visible

    for note in without_a_match(names):
        typer.echo(f"note: {visible(note)}", err=True)
