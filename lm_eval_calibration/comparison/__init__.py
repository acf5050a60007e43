"""Two runs compared on their records: docs aligned by hash, every metric's difference, what makes them unlike."""

from lm_eval_calibration.comparison.alignment import Alignment, align
from lm_eval_calibration.comparison.provenance import Unlike, unlike
from lm_eval_calibration.comparison.results import Difference, RunComparison, TaskComparison
from lm_eval_calibration.comparison.runs import compare_runs

__all__ = [
    "Alignment",
    "Difference",
    "RunComparison",
    "TaskComparison",
    "Unlike",
    "align",
    "compare_runs",
    "unlike",
]
