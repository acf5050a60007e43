"""Calibration beside accuracy in lm-evaluation-harness runs.

Importing the package is cheap: ``lm_eval_calibration.metrics`` needs NumPy, SciPy and scikit-learn only; the
harness and torch are imported by the parts that use them.
"""

from importlib.metadata import version

__version__ = version("lm-eval-calibration")
