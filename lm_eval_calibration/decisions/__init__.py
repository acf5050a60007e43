"""When may the model answer alone? Decisions with finite-sample guarantees, made on some docs and shown on others."""

from lm_eval_calibration.decisions.costs import CostDecision, Costs
from lm_eval_calibration.decisions.decide import Decision, Wanted, decide

__all__ = ["CostDecision", "Costs", "Decision", "Wanted", "decide"]
