"""Token scores from any backend of the harness. The only place with torch and backends."""

from lm_eval_calibration.scoring.dispatch import REQUEST_TYPE, install, token_scores
from lm_eval_calibration.scoring.switch import set_shared_prefixes
from lm_eval_calibration.scoring.token_scores import MAX_BINS, MIN_LARGE_PROB, TokenScores

__all__ = [
    "MAX_BINS",
    "MIN_LARGE_PROB",
    "REQUEST_TYPE",
    "TokenScores",
    "install",
    "set_shared_prefixes",
    "token_scores",
]
