"""Runs of the harness as they were logged, ours and stock ones, read and compared without a model."""

from lm_eval_calibration.results.alignment import Alignment, align
from lm_eval_calibration.results.certificates import CertificateDifference, certificate_differences
from lm_eval_calibration.results.comparison import compare_runs
from lm_eval_calibration.results.differences import Difference, RunComparison, TaskComparison
from lm_eval_calibration.results.files import Source, find_sources
from lm_eval_calibration.results.forms.form import Sample
from lm_eval_calibration.results.loading import load_run
from lm_eval_calibration.results.measured import Measured
from lm_eval_calibration.results.run import Run
from lm_eval_calibration.results.selection import Selection

__all__ = [
    "Alignment",
    "CertificateDifference",
    "Difference",
    "Measured",
    "Run",
    "RunComparison",
    "Sample",
    "Selection",
    "Source",
    "TaskComparison",
    "align",
    "certificate_differences",
    "compare_runs",
    "find_sources",
    "load_run",
]
