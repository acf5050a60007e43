"""The stock task that a calibrated one is made of, read from the installed harness when the task loads."""

import difflib
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_calibration.tasks.options import TaskError

_TASK_LINE = re.compile(rb"""^["']?task["']?:[ \t]*["']?([^\s"'#\[{]+)""", re.MULTILINE)


def stock_config(name: str) -> dict[str, Any]:
    """Return the stock task's configuration, its functions resolved, without what places it in groups."""
    config: dict[str, Any] = load_yaml(_path(name), resolve_func=True)
    # The alias would make our row look like the stock task's.
    for key in ("tag", "group", "task_list", "task_alias"):
        config.pop(key, None)
    return config


@cache
def _path(name: str) -> Path:
    """Find the YAML that defines a task.

    The harness's own index needs ten seconds for 14,000 files. A file named like the task is tried first (a tenth
    of a second), then one that has a line ``task: name`` (one second).
    """
    candidates = [path for path in _files() if path.stem == name]
    for path in [*candidates, *_paths_by_task_line().get(name, [])]:
        if load_yaml(path, resolve_func=False).get("task") == name:
            return path
    near = difflib.get_close_matches(name, _paths_by_task_line(), n=3)
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    raise TaskError(f"lm-eval {version('lm-eval')} has no task named {name!r}{hint}")


@cache
def _files() -> list[Path]:
    """All YAMLs of the harness, in the order in which its index reads them."""
    root = Path(lm_eval.tasks.__file__).parent
    return sorted(root.glob("**/*.yaml"), key=lambda path: path.as_posix())


@cache
def _paths_by_task_line() -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for path in _files():
        if match := _TASK_LINE.search(path.read_bytes()):
            paths.setdefault(match.group(1).decode(), []).append(path)
    return paths
