"""Any backend: what its own methods return, and no token distributions.

With ``--use_cache`` backends store single answers as they come, as stock answers: an interrupted run (or a stock task
of the same command) has paid for those, so they are read first.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval_calibration.backends.answer_types import CorpusScores, GeneratedText, TokenScores
from lm_eval_calibration.backends.cache import cached
from lm_eval_calibration.backends.certificate import certificate
from lm_eval_calibration.backends.registry import Deliver


def token_scores(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Answer by the backend's own ``loglikelihood``."""
    about = certificate(lm, distributions="none", tokenizer=False)
    for i, pair in _stock_answers(lm, "loglikelihood", requests):
        deliver(i, TokenScores((float(pair[0]), bool(pair[1])), certificate=about))


def generated_texts(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Answer by the backend's own ``generate_until``."""
    about = certificate(lm, token_probabilities="none", tokenizer=False)
    for i, text in _stock_answers(lm, "generate_until", requests, known_texts(lm, requests)):
        deliver(i, GeneratedText(text, certificate=about))


def corpus_scores(lm: Any, requests: Sequence[Any], deliver: Deliver) -> None:
    """Answer by the backend's own ``loglikelihood_rolling``."""
    about = certificate(lm, distributions="none", tokenizer=False)
    for i, log_likelihood in _stock_answers(lm, "loglikelihood_rolling", requests):
        deliver(i, CorpusScores(float(log_likelihood), certificate=about))


def is_sampled(request: Any) -> bool:
    """Whether a generation request wants samples; the harness caches none: they would all be the first one."""
    return bool(request.args[1].get("do_sample", False))


def known_texts(lm: Any, requests: Sequence[Any]) -> list[Any]:
    """Return the text that a stock run left in the cache for each request; None where there is none."""
    return cached(lm, "generate_until", [None if is_sampled(request) else request.args for request in requests])


def _stock_answers(
    lm: Any, method: str, requests: Sequence[Any], known: list[Any] | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield the number and answer of each request that the cache or the backend answers; ``known``: the cache's."""
    known = cached(lm, method, [request.args for request in requests]) if known is None else known
    unknown = [i for i, answer in enumerate(known) if answer is None]
    computed = getattr(lm, method)([requests[i] for i in unknown]) if unknown else []
    for i, answer in zip(unknown, computed, strict=False):  # the caller counts those that are missing
        known[i] = answer
    yield from ((i, answer) for i, answer in enumerate(known) if answer is not None)
