"""What was run, as the harness's results say it: model, settings, tasks, groups, versions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results.files import Source
from lm_eval_calibration.results.names import in_name
from lm_eval_calibration.results.shown import without_folders
from lm_eval_calibration.results.summary import within

MOST_BINS = 100
"""As ``--n_bins`` has it."""

DEFAULT_BINS = 10

_SETTINGS = (
    *("model", "model_args", "batch_size", "device", "limit", "gen_kwargs"),
    *("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"),
)


@dataclass(frozen=True)
class Configuration:
    """What was run.

    Attributes:
        sources: the calls of the harness, one or several of one model.
    """

    sources: tuple[Source, ...]

    @property
    def model(self) -> str:
        """Name of the model; that of the folder where no results say it."""
        return self.sources[0].model

    @property
    def dates(self) -> list[str]:
        """When each call ended, as the harness wrote it into the files' names."""
        return sorted(source.time for source in self.sources if source.time)

    @property
    def revision(self) -> str:
        """Hash or name of the model's revision, as far as the harness knows it; of several different ones all."""
        found = (source.results.get("config") or {} for source in self.sources)
        return ", ".join(dict.fromkeys(str(c["model_sha"]) for c in found if c.get("model_sha")))

    @property
    def commit(self) -> str:
        """Commit of the repository that the harness ran in; "" where it ran in none."""
        found = (source.results.get("git_hash") for source in self.sources)
        return ", ".join(dict.fromkeys(str(one) for one in found if one))

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Model arguments, limit, seeds and so on of each call, different ones once; of folders their names."""
        return _unique(
            {
                key: without_folders(source.results["config"][key])
                for key in _SETTINGS
                if key in source.results["config"]
            }
            for source in self.sources
            if isinstance(source.results.get("config"), Mapping)
        )

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of the harness and of transformers; several, by a comma, where the calls differ."""
        names = {"lm-eval": "lm_eval_version", "transformers": "transformers_version"}
        found = {name: [source.results.get(key) for source in self.sources] for name, key in names.items()}
        return {name: ", ".join(sorted(set(map(str, filter(None, some))))) for name, some in found.items() if any(some)}

    @cached_property
    def task_versions(self) -> dict[str, str]:
        """Task or group to its version."""
        return {name: str(version) for name, version in self._merged("versions").items()}

    @cached_property
    def num_fewshot(self) -> dict[str, int]:
        """Task or group to the number of its examples."""
        return {name: shots for name, shots in self._merged("n-shot").items() if isinstance(shots, int)}

    @cached_property
    def task_configs(self) -> dict[str, dict[str, Any]]:
        """Task to its configuration."""
        return dict(self._merged("configs"))

    @property
    def chat_template(self) -> str | None:
        """Hash of the chat template that was applied, if one was."""
        return next(
            (str(s.results["chat_template_sha"]) for s in self.sources if s.results.get("chat_template_sha")), None
        )

    def split_of(self, task: str) -> str | None:
        """Return the split whose docs were evaluated: the test split, or the validation split where there is none."""
        config = self.task_configs.get(task, {})
        split = config.get("test_split") or config.get("validation_split")
        return None if split is None else str(split)

    def dataset_of(self, task: str) -> tuple[str | None, str | None]:
        """Return the name of the data set that a task takes its docs from, and of its configuration."""
        found = (self.task_configs.get(task, {}).get(key) for key in ("dataset_path", "dataset_name"))
        path, name = (None if value is None else str(value) for value in found)
        return path, name

    def n_bins_of(self, tasks: Iterable[str]) -> int:
        """Return the number of bins of the run; 10 where its tasks differ or don't say.

        Raises:
            UserError: what a task says is no number of bins.
        """
        stated = {task: value for task in tasks if (value := stated_bins(self.task_configs.get(task))) is not None}
        for task, value in stated.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_BINS:
                file = next(s.results_file for s in self.sources if task in (s.results.get("configs") or {}))
                where = f"{file}: configs.{task}.metadata.calibration.n_bins"
                raise UserError(f"{where} is {value!r}, not 1 to {MOST_BINS}")
        return common_bins(stated.values())

    def groups_of(self, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return each group with those of these tasks that are in it, or in a group in it.

        Where only some tasks are wanted of the run, groups of which others are wanted too are none.
        """
        members, is_part = self._merged("group_subtasks"), any(source.is_part for source in self.sources)
        groups = {name: within(members, [name]) for name in members if name not in tasks}
        if is_part:
            wanted = {in_name(task) for source in self.sources for task in source.samples}  # one may be broken
            groups = {
                name: inside for name, inside in groups.items() if set(map(in_name, inside - members.keys())) <= wanted
            }
        found = {name: tuple(task for task in tasks if task in inside) for name, inside in groups.items()}
        return {name: inside for name, inside in found.items() if inside}

    def _merged(self, key: str) -> dict[str, Any]:
        parts = (source.results.get(key) for source in self.sources)
        return {name: value for part in parts if isinstance(part, Mapping) for name, value in part.items()}


def stated_bins(task_config: Any) -> Any:
    """Return what a task's configuration says of the number of bins; None where it says nothing."""
    for key in ("metadata", "calibration", "n_bins"):
        task_config = task_config.get(key) if isinstance(task_config, Mapping) else None
    return task_config


def common_bins(stated: Iterable[int]) -> int:
    """Return the number of bins that all tasks share which say it; else 10."""
    different = set(stated)
    return different.pop() if len(different) == 1 else DEFAULT_BINS


def _unique(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(item, sort_keys=True, default=str): item for item in items}.values())
