"""Groups of docs: by task, or by a field of the dataset's row."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.clusters import DOC, field_of
from lm_eval_calibration.results.differences import POOLED
from lm_eval_calibration.results.task_docs import TaskDocs

TASK = "task"


def check_grouping(by: str) -> None:
    """Raise UserError where docs can't be grouped by this."""
    if by != TASK and (not by.startswith(DOC) or by == DOC):
        raise UserError(f"docs can't be grouped by {by}: name task, or a field of the docs such as doc.subject")


def split_field(fit_on: str) -> tuple[str, str]:
    """Return field and value of a calibration split, FIELD=VALUE; raise UserError where it is none."""
    field, equals, value = fit_on.partition("=")
    if not equals:
        raise UserError(f"--fit_on {fit_on}: it is FIELD=VALUE, such as task=NAME or doc.split=validation")
    return field, value


def group_of(doc: Any, by: str, where: str) -> str:
    """Return the value of a field of a doc as a group's name, "none" where it has none.

    Raises:
        UserError: no such field; ``where`` says in which doc.
    """
    if doc is None:
        name = by.removeprefix(DOC)
        raise UserError(
            f"--by {by}: {where}: the run was redacted (--redact) and kept no field {name}: run it again with "
            f"--redact --keep {name}, or group by task (--by task)"
        )
    try:
        value = field_of(doc, by)
    except ValueError as error:
        raise UserError(f"--by {by}: {where} {error}") from error
    return "none" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def groups_of(docs: TaskDocs, rows: Sequence[int], by: str) -> list[str]:
    """Return the group of some docs of a task; fields are read again from the files, each once."""
    check_grouping(by)
    if by == TASK:
        return [docs.name] * len(rows)
    wanted = {docs.locations[i]: i for i in rows}
    found: dict[int, str] = {}
    for file in {file.path: file for file, _ in wanted}.values():
        for row, line in file.lines():
            if (i := wanted.get((file, row))) is not None:
                found[i] = group_of(line.get("doc"), by, f"doc {docs.doc_ids[i]} of {docs.name} in {file.path}")
    return [found[i] for i in rows]


def with_whole(tasks: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return tasks by name: "all" where no group holds all of several, the groups, then each task."""
    whole = {} if len(tasks) == 1 or set(tasks) in map(set, groups.values()) else {POOLED: tasks}
    return {**whole, **groups, **{task: (task,) for task in tasks}}
