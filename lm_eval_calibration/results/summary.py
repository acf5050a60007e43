"""``results_<time>.json``: what the harness writes of a call as a whole, read through one schema."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import jsonl
from lm_eval_calibration.records.schema import check, form_of

BEGINS = re.compile(rb'\s*\{\s*"results"\s*:')
"""How results begin in every version of the harness."""

_FORM = form_of(
    "Results",
    {
        "results": dict[str, dict[str, Any]],
        "configs": dict[str, dict[str, Any]] | None,
        "versions": dict[str, Any] | None,
        "n-shot": dict[str, Any] | None,
        "n-samples": dict[str, dict[str, int | None] | None] | None,
        "group_subtasks": dict[str, list[str]] | None,
        "config": dict[str, Any] | None,
        "model_name": str | None,
        "date": float | str | None,
    },
)
"""The keys that are used, with their types."""


def read_summary(path: Path) -> Mapping[str, Any]:
    """Return what the harness wrote of a call; raise UserError naming file, field and value where that can't be."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return _read(path, status.st_mtime_ns, status.st_size)


def within(groups: Mapping[str, Iterable[str]], names: Iterable[str]) -> set[str]:
    """Return these groups and tasks and all that is in them, or in groups in them."""
    inside, waiting = set(names), list(names)
    while waiting:
        parts = [part for part in groups.get(waiting.pop(), ()) if part not in inside]
        inside.update(parts)
        waiting += parts
    return inside


@lru_cache(maxsize=4096)
def _read(path: Path, _time: int, _size: int) -> Mapping[str, Any]:
    try:
        with jsonl.JsonLines(path).opened() as file:
            data = jsonl.loads(file.read())
    except ValueError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise UserError(f"{path}: these are not results of the harness ('results' is missing)")
    try:
        check(data, _FORM)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return data
