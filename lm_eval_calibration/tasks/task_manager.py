"""The harness's task manager with our tasks known, and without its ten-second index where nobody needs it."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from lm_eval_calibration.directory import task_configs
from lm_eval_calibration.tasks.options import Options, TaskError


class CalibrationTaskManager(TaskManager):  # type: ignore[misc]
    """Knows our task directory beside any ``include_path``; reads the stock index when a task is not ours."""

    def __init__(self, include_path: Any = None, include_defaults: bool = True, **options: Any) -> None:
        Options.from_metadata(options.get("metadata") or {}, "--metadata")  # before a large model is loaded
        paths = include_path if isinstance(include_path, list | tuple) else [include_path]
        self._paths = [*(path for path in paths if path is not None), task_configs()]
        self._options = options
        self._stock_index_is_due = include_defaults
        super().__init__(include_path=self._paths, include_defaults=False, **options)

    def _need(self, specs: Iterable[Any]) -> None:
        """Read the stock index unless every task asked for is one of ours."""
        if self._stock_index_is_due and not all(self._is_ours(spec) for spec in specs):
            self._stock_index_is_due = False
            super().__init__(include_path=self._paths, include_defaults=True, **self._options)

    def _is_ours(self, spec: Any) -> bool:
        entry = self.task_index.get(spec) if isinstance(spec, str) else None
        if entry is None:
            return False
        if entry.yaml_path is None:  # a tag
            return all(self._is_ours(name) for name in entry.tags)
        return Path(entry.yaml_path).is_relative_to(task_configs())

    def match_tasks(self, task_list: list[str]) -> list[str]:
        """Match names and glob patterns; a calibrated task that does not exist is named with its neighbours."""
        self._need(task_list)
        matches: list[str] = super().match_tasks(task_list)
        for name in task_list:
            if not matches and name.endswith("_calibration") and not Path(name).exists():
                near = difflib.get_close_matches(name, [t for t in self.all_tasks if t.endswith("_calibration")])
                raise TaskError(f"no task {name!r}" + (f"; the nearest are {', '.join(near)}" if near else ""))
        return matches

    def load(self, task_list: Any) -> Any:
        """Load tasks, groups and tags."""
        specs = task_list if isinstance(task_list, list) else [task_list]
        self._need(spec for spec in specs if isinstance(spec, str | dict))
        return super().load(task_list)
