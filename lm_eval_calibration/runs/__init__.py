"""Runs of the harness as they were logged, ours and stock ones, read without a model."""

from lm_eval_calibration.runs.files import Source, find_sources
from lm_eval_calibration.runs.loading import load_run
from lm_eval_calibration.runs.measured import REPORTED, Measured
from lm_eval_calibration.runs.reading import Sample, read_samples
from lm_eval_calibration.runs.run import Run

__all__ = ["REPORTED", "Measured", "Run", "Sample", "Source", "find_sources", "load_run", "read_samples"]
