"""The task that a calibrated one is made of: the harness's own by name, a user's by the path of its YAML."""

import difflib
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_calibration.errors import TaskError

STOCK = Path(lm_eval.tasks.__file__).parent
"""The harness's own task directory."""

_TASK_LINE = re.compile(rb"""^["']?task["']?:[ \t]*["']?([^\s"'#\[{]+)""", re.MULTILINE)

NOT_OF_A_TASK = ("tag", "group", "task_list", "task_alias")
"""What places a task in groups, and the alias, which would make our row look like the stock task's."""


def is_stock(path: Path) -> bool:
    """Whether a YAML is the harness's own: a user can't mend what is in it."""
    return path.is_relative_to(STOCK)


def read_config(path: Path, *, resolve: bool = True) -> dict[str, Any]:
    """Return a task YAML's configuration, its functions resolved, without what places it in groups.

    Raises:
        TaskError: naming the file, and the line or the function that can't be read.
    """
    config = read_yaml(path, resolve=resolve)
    return {key: value for key, value in config.items() if key not in NOT_OF_A_TASK}


def read_yaml(path: Path, *, resolve: bool) -> dict[str, Any]:
    """Read a YAML of the harness's kind, with its includes."""
    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=resolve)
    except FileNotFoundError as error:
        raise TaskError(f"{error.filename} does not exist") from error
    except yaml.YAMLError as error:
        raise TaskError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # a !function may run any code of its module; an include may be anything
        raise TaskError(f"{path} can't be read: {error!r}") from error
    return config


def stock_config(name: str) -> dict[str, Any]:
    """Return the configuration of a task of the harness."""
    return read_config(stock_path(name))


def stock_path(name: str) -> Path:
    """Find the harness's YAML that defines a task.

    The harness's own index needs ten seconds for 14,000 files. A file named like the task is tried first (a tenth
    of a second), then one that has a line ``task: name`` (one second).

    Raises:
        TaskError: naming the nearest tasks.
    """
    path = find_stock_path(name)
    if path is None:
        near = difflib.get_close_matches(name, _paths_by_task_line(), n=3)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise TaskError(f"lm-eval {version('lm-eval')} has no task named {name!r}{hint}")
    return path


@cache
def find_stock_path(name: str) -> Path | None:
    """Return the YAML of a task of the harness, or None where it has none of that name."""
    candidates = [path for path in _files() if path.stem == name]
    for path in [*candidates, *_paths_by_task_line().get(name, [])]:
        if load_yaml(path, resolve_func=False).get("task") == name:
            return path
    return None


@cache
def _files() -> list[Path]:
    """All YAMLs of the harness, in the order in which its index reads them."""
    return sorted(STOCK.glob("**/*.yaml"), key=lambda path: path.as_posix())


@cache
def _paths_by_task_line() -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for path in _files():
        if match := _TASK_LINE.search(path.read_bytes()):
            paths.setdefault(match.group(1).decode(), []).append(path)
    return paths
