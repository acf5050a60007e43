"""When may the model answer alone? Decisions with finite-sample guarantees, made on some docs and shown on others."""

from lm_eval_calibration.decisions.checks import Checked, check
from lm_eval_calibration.decisions.costs import CostDecision, Costs
from lm_eval_calibration.decisions.curve import GuaranteeCurve
from lm_eval_calibration.decisions.decide import Decision, decide
from lm_eval_calibration.decisions.decision_file import SavedDecision
from lm_eval_calibration.decisions.sets_of_docs import SetsShown
from lm_eval_calibration.decisions.shown import Share
from lm_eval_calibration.decisions.wanted import Wanted

__all__ = [
    "Checked",
    "CostDecision",
    "Costs",
    "Decision",
    "GuaranteeCurve",
    "SavedDecision",
    "SetsShown",
    "Share",
    "Wanted",
    "check",
    "decide",
]
