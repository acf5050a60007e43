"""Pictures of calibration: what is in them (``prepare_...``) apart from how they are drawn."""

from lm_eval_calibration.diagrams.reliability import Reliability, ReliabilityBin, prepare_reliability

__all__ = ["Reliability", "ReliabilityBin", "prepare_reliability"]
