"""Token scores, generated texts and corpus scores from any backend of the harness."""

from lm_eval_calibration.backends.answer_types import (
    MAX_BINS,
    MIN_LARGE_PROB,
    TEMPERATURES,
    TOP_K,
    CorpusScores,
    GeneratedText,
    TokenScores,
    TokenSums,
)
from lm_eval_calibration.backends.dispatch import (
    can_score_texts,
    corpus_scores,
    generated_texts,
    install,
    token_scores,
)
from lm_eval_calibration.backends.registry import (
    CORPUS_REQUEST_TYPE,
    FOLLOW_UP_REQUEST_TYPE,
    GENERATION_REQUEST_TYPE,
    SCORING_REQUEST_TYPE,
    register,
)
from lm_eval_calibration.backends.thoughts import THINK_END
from lm_eval_calibration.backends.tokens import is_token_prefix, tokens_of_span
from lm_eval_calibration.backends.waiting import WaitsFor, can_wait, let_wait

__all__ = [
    "CORPUS_REQUEST_TYPE",
    "FOLLOW_UP_REQUEST_TYPE",
    "GENERATION_REQUEST_TYPE",
    "MAX_BINS",
    "MIN_LARGE_PROB",
    "SCORING_REQUEST_TYPE",
    "TEMPERATURES",
    "THINK_END",
    "TOP_K",
    "CorpusScores",
    "GeneratedText",
    "TokenScores",
    "TokenSums",
    "WaitsFor",
    "can_score_texts",
    "can_wait",
    "corpus_scores",
    "generated_texts",
    "install",
    "is_token_prefix",
    "let_wait",
    "register",
    "token_scores",
    "tokens_of_span",
]
