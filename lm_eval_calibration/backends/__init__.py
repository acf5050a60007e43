"""Token scores from any backend of the harness. The only place with torch and backends."""

from lm_eval_calibration.backends.continuations import begins
from lm_eval_calibration.backends.corpus_scores import CorpusScores, TokenSums
from lm_eval_calibration.backends.dispatch import (
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
from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.switch import set_shared_prefixes, set_temperatures
from lm_eval_calibration.backends.temperature_scores import TEMPERATURES
from lm_eval_calibration.backends.token_scores import MAX_BINS, MIN_LARGE_PROB, TokenScores

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
