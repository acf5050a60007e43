"""Calibrated tasks in Python."""

from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.stock import read_yaml
from lm_eval_calibration.tasks.any_task import SUFFIX
from lm_eval_calibration.tasks.calibrated_task import CalibratedTask
from lm_eval_calibration.tasks.options import KEY
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager


def calibrated(task: str | Path, *, include_path: str | Path | None = None, **options: Any) -> Any:
    """Return a task or group with calibration, for ``simple_evaluate(tasks=[...])``.

    Args:
        task: name of a task, group or tag of the harness or of ``include_path``, or the path of a task YAML.
        include_path: directory of your own task YAMLs.
        **options: the options of a task file: ``n_bins``, ``metrics``, ``confidence``, ``permute``, ``p_true`` ...

    Returns:
        The harness's task (or group) object, named ``<name>_calibration``; its data set is loaded.

    Raises:
        TaskError: naming file, task and what can't be calibrated in it.

    Example:
        ``simple_evaluate(model=lm, tasks=[calibrated("hellaswag"), calibrated("my_task.yaml", n_bins=15)])``
    """
    metadata = {KEY: options} if options else None
    name, directories = str(task), [include_path] if include_path else []
    if name.endswith(".yaml"):
        path = Path(task).expanduser().resolve()
        config = read_yaml(path, resolve=False)
        named = config.get("group") or config.get("task")
        if not isinstance(named, str):
            raise TaskError(f"{path} names neither a task nor a group")
        name = named
        if "group" not in config and "class" not in config:
            return CalibratedTask({"task": name + SUFFIX, "stock_task": str(path), "metadata": metadata})
        directories.append(path.parent)
    name = name.removesuffix(SUFFIX) + SUFFIX
    loaded = CalibrationTaskManager(include_path=directories, metadata=metadata).load([name])
    return loaded.get("groups", {}).get(name) or loaded["tasks"][name]
