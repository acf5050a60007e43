"""What a run's numbers can be of: its groups, its tasks, and the docs of all of them."""

from lm_eval_calibration.results.grouping import with_whole
from lm_eval_calibration.results.run import Run


def scopes(run: Run) -> dict[str, tuple[str, ...]]:
    """Tasks by name: groups first, "all" before them where no group holds all tasks of several, then each task."""
    return with_whole(run.tasks, run.groups)


def split_of(run: Run, task: str) -> str | None:
    """Name of the split whose docs were evaluated: the test split, or the validation split where there is none."""
    config = run.configuration.task_configs.get(task, {})
    split = config.get("test_split") or config.get("validation_split")
    return None if split is None else str(split)


def dataset_of(run: Run, task: str) -> tuple[str | None, str | None]:
    """Name of the data set that a task takes its docs from, and of its configuration."""
    config = run.configuration.task_configs.get(task, {})
    path, name = config.get("dataset_path"), config.get("dataset_name")
    return None if path is None else str(path), None if name is None else str(name)
