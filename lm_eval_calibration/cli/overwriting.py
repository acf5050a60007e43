"""No command writes over a file that it was given to read."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError

OUTPUTS = ("output", "picture", "history")
"""Arguments of commands that name what is written."""

WRITTEN_AS = ("", ".json", ".html")
"""Suffixes in the place of an output's own under which ``evidence`` writes."""

LOGGED = ("samples_*.jsonl", "results_*.json")


def refusing_to_overwrite_inputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that raises UserError where one of its outputs is a file of its inputs."""

    @wraps(command)
    def checked(*args: Any, **arguments: Any) -> Any:
        inputs = [path for name, value in arguments.items() if name not in OUTPUTS for path in _paths(value)]
        for name in OUTPUTS:
            for path in _paths(arguments.get(name)):
                _check(name, path, inputs)
        return command(*args, **arguments)

    return checked


def _paths(value: Any) -> Iterator[Path]:
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, Path):
            yield one
        elif isinstance(one, str):  # NAME=PATH of a run
            yield from (Path(text) for text in {one, one.partition("=")[2]} if text)


def _check(name: str, output: Path, inputs: list[Path]) -> None:
    for path in (output, *(output.with_suffix(suffix) for suffix in WRITTEN_AS[1:] if output.name)):
        if any(_is_of(path, given) for given in inputs):
            raise UserError(f"--{name} {output} would overwrite {path}, which is read: name another file")


def _is_of(path: Path, given: Path) -> bool:
    """Return whether a file is an input, or is logged in a folder that is one."""
    try:
        if not path.is_file():
            return False
        if given.is_file():
            return path.samefile(given)
        real = path.resolve()
        return given.is_dir() and any(map(real.match, LOGGED)) and given.resolve() in real.parents
    except (OSError, ValueError):  # no path: the value of another option
        return False
