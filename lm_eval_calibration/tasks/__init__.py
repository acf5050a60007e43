"""Calibrated tasks. Using any of these names activates the plugin in the harness; importing the package does not.

Reports read the registry of confidence sources, which is in this package and needs no harness.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval_calibration.errors import TaskError
    from lm_eval_calibration.harness.task_configs import task_configs
    from lm_eval_calibration.tasks.api import calibrated
    from lm_eval_calibration.tasks.calibrated_task import CalibratedTask
    from lm_eval_calibration.tasks.options import Options
    from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager

__all__ = ["CalibratedTask", "CalibrationTaskManager", "Options", "TaskError", "calibrated", "task_configs"]

_MODULES = {
    "CalibratedTask": "lm_eval_calibration.tasks.calibrated_task",
    "CalibrationTaskManager": "lm_eval_calibration.tasks.task_manager",
    "Options": "lm_eval_calibration.tasks.options",
    "TaskError": "lm_eval_calibration.errors",
    "calibrated": "lm_eval_calibration.tasks.api",
    "task_configs": "lm_eval_calibration.harness.task_configs",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("lm_eval_calibration.tasks.calibrated_task")  # activates the plugin
    return getattr(import_module(_MODULES[name]), name)
