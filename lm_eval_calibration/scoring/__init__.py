"""Token scores from any backend of the harness. The only place with torch and backends."""

from lm_eval_calibration.scoring.continuations import begins
from lm_eval_calibration.scoring.corpus_scores import CorpusScores, TokenSums
from lm_eval_calibration.scoring.dispatch import (
    CORPUS_REQUEST_TYPE,
    FOLLOWED_UP_REQUEST_TYPE,
    GENERATION_REQUEST_TYPE,
    REQUEST_TYPE,
    corpus_scores,
    followed_up_tokens,
    generated_tokens,
    install,
    scores_texts,
    token_scores,
)
from lm_eval_calibration.scoring.generated_text import GeneratedText
from lm_eval_calibration.scoring.switch import set_shared_prefixes, set_temperatures
from lm_eval_calibration.scoring.temperature_scores import TEMPERATURES
from lm_eval_calibration.scoring.token_scores import MAX_BINS, MIN_LARGE_PROB, TokenScores

__all__ = [
    "CORPUS_REQUEST_TYPE",
    "FOLLOWED_UP_REQUEST_TYPE",
    "GENERATION_REQUEST_TYPE",
    "MAX_BINS",
    "MIN_LARGE_PROB",
    "REQUEST_TYPE",
    "TEMPERATURES",
    "CorpusScores",
    "GeneratedText",
    "TokenScores",
    "TokenSums",
    "begins",
    "corpus_scores",
    "followed_up_tokens",
    "generated_tokens",
    "install",
    "scores_texts",
    "set_shared_prefixes",
    "set_temperatures",
    "token_scores",
]
