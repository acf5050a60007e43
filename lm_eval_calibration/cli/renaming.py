"""``--rename OLD=NEW``, of every command that shows names of models or tasks."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from lm_eval_calibration.reports.names import parse_renames, renamed

Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="Show a model, task or group by another name. Repeatable."),
]


def with_rename(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with the option, which holds while the command runs."""

    @wraps(command)
    def renaming(*arguments: Any, rename: list[str] | None = None, **options: Any) -> Any:
        with renamed(parse_renames(rename or [])):
            return command(*arguments, **options)

    signature = inspect.signature(command)
    option = inspect.Parameter("rename", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Rename)
    renaming.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    renaming.__annotations__ = {**command.__annotations__, "rename": Rename}
    return renaming
