"""The harness's index of tasks, groups and tags by name, and a task manager whose index grows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

Index = Mapping[str, Entry]

_KINDS: dict[Kind, Literal["task", "group", "tag"]] = {
    Kind.TASK: "task",
    Kind.PY_TASK: "task",
    Kind.GROUP: "group",
    Kind.TAG: "tag",
}


def kind_of(entry: Entry) -> Literal["task", "group", "tag"]:
    """Return what an entry is of."""
    return _KINDS[entry.kind]


def members_of(entry: Entry) -> list[Any]:
    """Return what a group's file lists, the names of a tag's tasks, nothing of a task."""
    if kind_of(entry) == "tag":
        return sorted(entry.tags)
    listed = (entry.cfg or {}).get("task") or [] if kind_of(entry) == "group" else []
    return listed if isinstance(listed, list) else [listed]


def entry_of(config: Mapping[str, Any], task_class: type) -> Entry:
    """Return the keys of a group or of a task (which the class makes) as an entry."""
    if "group" in config:
        return Entry(config["group"], Kind.GROUP, None, dict(config))
    return Entry(config["task"], Kind.PY_TASK, None, {**config, "class": task_class})


def read_index(include_path: Path | None, *, include_defaults: bool = True) -> dict[str, Entry]:
    """Return the index of a directory, by default with the harness's own tasks."""
    manager = TaskManager(include_path=include_path and str(include_path), include_defaults=include_defaults)
    index: dict[str, Entry] = manager.task_index
    return index


class GrowingTaskManager(TaskManager):  # type: ignore[misc]
    """A task manager that takes further entries, and reads the ten-second index of stock tasks only when told to.

    Args:
        include_path: directories of task YAMLs.
        include_defaults: whether the stock index may be read.
        **options: the task manager's.
    """

    def __init__(self, include_path: list[Path], *, include_defaults: bool, **options: Any) -> None:
        self._options = options
        self._added: dict[str, Entry] = {}
        self.stock_index_is_due = include_defaults
        super().__init__(include_path=include_path, include_defaults=False, **options)

    def read_stock_index(self) -> None:
        """Add the harness's own tasks, where that may be and is not done."""
        if self.stock_index_is_due:
            self.stock_index_is_due = False
            super().__init__(include_path=self.include_path, include_defaults=True, **self._options)
            self.add({})

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Add entries; they come before others of their names."""
        self._added.update(entries)
        self._index.update(self._added)
        self._all_tasks = sorted(self._index)
        self._all_subtasks = [name for name in self._all_tasks if kind_of(self._index[name]) == "task"]
        self._all_groups = [name for name in self._all_tasks if kind_of(self._index[name]) == "group"]
