"""The harness's task manager that calibrates any task by its name, without the ten-second index where it can."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.index import GrowingTaskManager, entry_of, members_of
from lm_eval_calibration.harness.log import logger
from lm_eval_calibration.harness.stock import find_stock_path, read_config, read_yaml
from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.tasks.any_task import SUFFIX, Calibrated, calibrated, is_users_own
from lm_eval_calibration.tasks.calibrated_task import CalibratedTask
from lm_eval_calibration.tasks.configuration import reason_unsupported
from lm_eval_calibration.tasks.options import Options
from lm_eval_calibration.tasks.variants import base_of, variant


class CalibrationTaskManager(GrowingTaskManager):
    """Knows ``<name>_calibration`` for every task, group and tag of the harness and of any ``include_path``.

    The stock index is read only when a requested name can be found in no other way.
    """

    def __init__(self, include_path: Any = None, include_defaults: bool = True, **options: Any) -> None:
        Options.from_metadata(options.get("metadata") or {}, "--metadata")  # before a large model is loaded
        paths = include_path if isinstance(include_path, list | tuple) else [include_path]
        self._users_paths = [Path(path) for path in paths if path is not None]
        super().__init__([*self._users_paths, task_configs()], include_defaults=include_defaults, **options)

    def match_tasks(self, task_list: list[str]) -> list[str]:
        """Match names and glob patterns, calibrated ones included; raise TaskError where one matches nothing."""
        matches: list[str] = []
        for name in task_list:
            self._prepare(name)
            found = super().match_tasks([name])
            if not found:
                raise TaskError(self._not_found(name))
            matches += found
        return sorted(set(matches))

    def load(self, task_list: Any) -> Any:
        """Load tasks, groups and tags."""
        for spec in task_list if isinstance(task_list, list) else [task_list]:
            if isinstance(spec, str):
                self._prepare(spec)
            elif isinstance(spec, dict):
                self.read_stock_index()
        return super().load(task_list)

    def _prepare(self, name: str) -> None:
        """Bring what a name or pattern needs into the index."""
        if self._is_known(name) or (name.endswith(".yaml") and Path(name).is_file()):
            return
        if not name.endswith(SUFFIX):
            self.read_stock_index()
        elif _is_pattern(name):
            self._calibrate_pattern(name)
        else:
            self._calibrate(name)

    def _is_known(self, spec: Any) -> bool:
        """Whether a name, and every name in a group of that name, is in the index as it is."""
        if isinstance(spec, dict):
            if "group" in spec and spec["group"] not in self.task_index:
                return all(self._is_known(member) for member in spec.get("task") or [])
            spec = spec.get("group") or spec.get("task")
        if _is_pattern(str(spec)):
            ready = [name for name in self.task_index if name.endswith(SUFFIX) and fnmatchcase(name, spec)]
            bases = [name for name in self._users_names() if fnmatchcase(name, spec.removesuffix(SUFFIX))]
            return bool(ready) and all(base + SUFFIX in ready for base in bases)
        if is_users_own(str(spec).removesuffix(SUFFIX), self.task_index) or spec not in self.task_index:
            return False
        return all(self._is_known(member) for member in members_of(self.task_index[spec]))

    def _users_names(self) -> list[str]:
        """Return the tasks and groups of the user's own files that are not calibrated themselves."""
        files = {name: entry.yaml_path for name, entry in self.task_index.items() if entry.yaml_path is not None}
        return [
            name
            for name, path in files.items()
            if not name.endswith(SUFFIX) and any(path.is_relative_to(directory) for directory in self._users_paths)
        ]

    def _calibrate(self, name: str) -> None:
        """Make ``<base>_calibration``, or a variant of it, and what it holds."""
        base = name.removesuffix(SUFFIX)
        if (split := base_of(name)) and base not in self.task_index:
            calibrated_base, infix = split
            self._prepare(calibrated_base)
            if calibrated_base in self.task_index:
                self._make(name, variant(calibrated_base, infix, self.task_index))
                return
        if base not in self.task_index and self.stock_index_is_due and (path := find_stock_path(base)):
            if reason := reason_unsupported(read_config(path, resolve=False)):
                raise TaskError(f"{base} can't be calibrated: {reason}")
            self._make(name, Calibrated({name: {"task": name, "stock_task": base}}))
            return
        if not self._is_known(base):
            self.read_stock_index()
        if base not in self.task_index:
            raise TaskError(self._not_found(name))
        self._make(name, calibrated(base, self.task_index))

    def _calibrate_pattern(self, pattern: str) -> None:
        if split := base_of(pattern):
            calibrated_pattern, infix = split
            self._prepare(calibrated_pattern)
            for name in [n for n in self.task_index if fnmatchcase(n, calibrated_pattern) and base_of(n) is None]:
                self._make(name, variant(name, infix, self.task_index))
            return
        self.read_stock_index()
        plain = [name for name in self.task_index if not name.endswith(SUFFIX)]
        bases = [name for name in plain if fnmatchcase(name, pattern.removesuffix(SUFFIX))]
        reasons = {}
        for base in bases:
            try:
                self._make(base + SUFFIX, calibrated(base, self.task_index))
            except TaskError as error:
                reasons[base] = str(error)
        if reasons and len(reasons) == len(bases):
            raise TaskError(f"{pattern} matches nothing that can be calibrated: {next(iter(reasons.values()))}")
        for reason in reasons.values():
            logger.warning("left out of %s: %s", pattern, reason)

    def _make(self, name: str, made: Calibrated) -> None:
        if made.left_out:
            tasks = "; ".join(f"{task} ({reason})" for task, reason in made.left_out.items())
            logger.warning("%s leaves out what can't be calibrated: %s", name, tasks)
        self.add(
            {
                made_name: entry_of(config, CalibratedTask)
                for made_name, config in made.configs.items()
                if made_name not in self.task_index or is_users_own(made_name.removesuffix(SUFFIX), self.task_index)
            }
        )

    def _not_found(self, name: str) -> str:
        bases = [f"{base}{SUFFIX}" for base in self.task_index if not base.endswith(SUFFIX)]
        near = difflib.get_close_matches(name, [*self.task_index, *bases], n=3)
        hint = f"; the nearest are {', '.join(dict.fromkeys(near))}" if near else ""
        return "; ".join([f"no task {name!r}{hint}", *_unreadable(self._users_paths)])


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _unreadable(directories: Iterable[Path]) -> list[str]:
    """Name the YAMLs that can't be read: the harness passes them over, and their tasks are then unknown."""
    problems = []
    for path in (path for directory in directories for path in sorted(directory.rglob("*.yaml"))):
        try:
            read_yaml(path, resolve=False)
        except TaskError as error:
            problems.append(str(error))
    return problems
