"""Calibrated tasks: the only place with the harness's task and registry interfaces.

Importing this package activates the plugin: a task YAML names ``CalibratedTask``, and that import adds the request
type to every backend, registers the metrics and applies the (few, named) patches.
"""

from lm_eval_calibration import backends
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness import patches as harness_patches
from lm_eval_calibration.harness.task_configs import task_configs
from lm_eval_calibration.tasks import registration  # noqa: F401  (registers on import)
from lm_eval_calibration.tasks.api import calibrated
from lm_eval_calibration.tasks.calibrated_task import CalibratedTask
from lm_eval_calibration.tasks.options import Options
from lm_eval_calibration.tasks.task_manager import CalibrationTaskManager

__all__ = ["CalibratedTask", "CalibrationTaskManager", "Options", "TaskError", "calibrated", "task_configs"]

backends.install()
harness_patches.apply()
