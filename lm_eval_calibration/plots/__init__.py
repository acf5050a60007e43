"""Pictures of calibration: what is in them (``prepare_...``) apart from how they are drawn."""

from lm_eval_calibration.plots.reliability import Reliability, ReliabilityBin, prepare_reliability
from lm_eval_calibration.plots.risk_coverage import RiskCoveragePoint, prepare_risk_coverage
from lm_eval_calibration.plots.vocabulary import Vocabulary, VocabularyBin, VocabularyCounter

__all__ = [
    "Reliability",
    "ReliabilityBin",
    "RiskCoveragePoint",
    "Vocabulary",
    "VocabularyBin",
    "VocabularyCounter",
    "prepare_reliability",
    "prepare_risk_coverage",
]
