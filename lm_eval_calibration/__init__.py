"""Calibration beside accuracy in lm-evaluation-harness runs.

Importing the package is cheap: ``lm_eval_calibration.metrics`` needs NumPy, SciPy and scikit-learn only; the
harness and torch are imported by the parts that use them.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval_calibration.results import load_run
    from lm_eval_calibration.results.display import CalibrationDisplay
    from lm_eval_calibration.tasks import calibrated

__all__ = ["CalibrationDisplay", "calibrated", "load_run"]

__version__ = version("lm-eval-calibration")


def __getattr__(name: str) -> Any:
    """Import ``calibrated``, and with it the harness, or ``load_run`` or the display when it is asked for."""
    if name == "calibrated":
        from lm_eval_calibration.tasks import calibrated

        return calibrated
    if name == "load_run":
        from lm_eval_calibration.results import load_run

        return load_run
    if name == "CalibrationDisplay":
        from lm_eval_calibration.results.display import CalibrationDisplay

        return CalibrationDisplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
