"""Request types of our own: methods on the harness's base class ``LM``, dispatched by backend.

The evaluator calls ``getattr(lm, request_type)(requests)``, so a new method on ``LM`` reaches every backend and
replaces nothing. ``token_scores_v1`` scores a continuation; the number of bins is no argument of it: backends return
what every n_bins up to 100 needs. ``generated_tokens_v1`` continues a prompt as ``generate_until`` does.
``corpus_scores_v1`` scores every token of a text, and returns sums over the bins that the request wants.
``followed_up_tokens_v1`` is ``generated_tokens_v1`` and after it requests about what was generated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.model import LM, CachingLM, TemplateLM, hash_args

from lm_eval_calibration.backends import fallback
from lm_eval_calibration.backends.alternatives import has_what_is_wanted
from lm_eval_calibration.backends.answer_types import CorpusScores, GeneratedText, TokenScores
from lm_eval_calibration.backends.api.first_token import is_of_first_token
from lm_eval_calibration.backends.cache import cached, database
from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.follow_ups import with_follow_ups
from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.registry import (
    CORPUS_REQUEST_TYPE,
    FOLLOW_UP_REQUEST_TYPE,
    GENERATION_REQUEST_TYPE,
    SCORING_REQUEST_TYPE,
    Answer,
    find,
)
from lm_eval_calibration.backends.waiting import Queue


@dataclass(frozen=True)
class RequestType:
    """What holds for requests of a type, whatever the backend."""

    name: str  # of the method on `LM`
    fallback: Answer  # for a backend that nothing is known of
    missing: str  # what the fallback's answers lack
    given: str  # what they have
    consequence: str  # what the results lack then
    is_complete: Callable[[LM, Any, Any], bool]  # whether a cached answer to a request has all that can be had
    is_cached: Callable[[Any], bool] = lambda _: True  # whether a request is answered from --use_cache
    cache_key: Callable[[Any], Any] = lambda request: request.args  # what an answer depends on


def _is_complete_score(_: LM, request: Any, answer: TokenScores) -> bool:
    wants_grid = getattr(request, "temperatures", False)
    has_all = answer.has_distributions and (answer.temperatures is not None or not wants_grid)
    return has_all or is_of_first_token(answer)


TOKEN_SCORES = RequestType(
    SCORING_REQUEST_TYPE,
    fallback.token_scores,
    missing="token distributions",
    given="log-likelihoods",
    consequence="full_ece is left out, all other metrics are complete",
    is_complete=_is_complete_score,
)

GENERATED_TEXTS = RequestType(
    GENERATION_REQUEST_TYPE,
    fallback.generated_texts,
    missing="probabilities of the tokens that it writes",
    given="texts",
    consequence="its answers have no confidence, and the metrics of confidence are left out",
    # Texts alone are an answer where this backend gave no more.
    is_complete=lambda lm, request, text: (
        has_what_is_wanted(request, text)
        if text.has_probabilities
        else text.certificate.get("backend") == type(lm).__name__
    ),
    is_cached=lambda request: not fallback.is_sampled(request),
)

CORPUS_SCORES = RequestType(
    CORPUS_REQUEST_TYPE,
    fallback.corpus_scores,
    missing="token distributions",
    given="log-likelihoods",
    consequence="full_ece, ece and token_accuracy are left out, perplexities are complete",
    is_complete=lambda _, __, answer: answer.has_distributions,
    cache_key=lambda request: (*request.args, request.n_bins),
)


def answer_of(lm: LM, request_type: RequestType) -> Answer:
    """Return the function that answers requests of a type for a backend; warn where that is the fallback."""
    answer, reason = find(lm, request_type.name)
    if answer is not None:
        return answer
    reason = reason or f"it returns {request_type.given} only"
    logger.warning(
        "%s gives no %s (%s): %s.", type(lm).__name__, request_type.missing, reason, request_type.consequence
    )
    return request_type.fallback


def answers(lm: LM, requests: Sequence[Any], request_type: RequestType) -> list[Any]:
    """Answer requests of a type, in their order.

    With ``--use_cache`` every answer is stored as soon as it is known, and known answers are not computed again.
    Requests that wait for others (:mod:`waiting`) are sent in a second call, except those that the backend has answered
    in the first: it is given them when it delivers the answer that they waited for last.
    """
    answer = answer_of(lm, request_type)
    call = _Call(lm, requests, request_type, answer is request_type.fallback)
    for _ in range(1 + (call.queue.waits or lm.world_size > 1)):  # ranks make equally many calls, whatever waits there
        to_send = call.next()
        if to_send or lm.world_size > 1:  # other ranks may need this one's help with theirs
            answer(lm, to_send, call.deliver)
    if missing := sum(known is None for known in call.found):
        raise RuntimeError(f"{type(lm).__name__} left {missing} of {len(requests)} requests unanswered")
    return call.found


class _Call:
    """Requests of a call, and what is known of them.

    Attributes:
        queue: which of them can be answered.
        found: the answers; None where there is none yet.
    """

    def __init__(self, lm: LM, requests: Sequence[Any], request_type: RequestType, is_fallback: bool) -> None:
        self.lm, self.requests, self.request_type, self.is_fallback = lm, requests, request_type, is_fallback
        self.queue = Queue(requests)
        self.found: list[Any] = [None] * len(requests)
        self.cache = database(lm)
        self._open = self._unknown(self.queue.first())
        self._sent: list[int] = []

    def next(self) -> list[Any]:
        """Return the requests to send; the backend knows them by their numbers in this list."""
        self._sent = [i for i in self._open if self.found[i] is None]
        self._open = []
        return [self.requests[i] for i in self._sent]

    def deliver(self, number: int, known: Any) -> list[Any]:
        """Take an answer; return the requests that it made ready, whose numbers follow those of all before."""
        i = self._sent[number]
        self.found[i] = known
        if self.cache is not None and (key := self._key(i)) is not None:
            self.cache[hash_args(self.request_type.name, key)] = known
        ready = self._unknown(self.queue.ready(i, known))
        self._open += ready
        self._sent += ready
        return [self.requests[j] for j in ready]

    def _key(self, i: int) -> Any:
        request = self.requests[i]
        return self.request_type.cache_key(request) if self.request_type.is_cached(request) else None

    def _unknown(self, numbers: Sequence[int]) -> list[int]:
        """Return the requests whose answers aren't cached, and those that the cached ones make ready."""
        unknown: list[int] = []
        cached_answers = cached(self.lm, self.request_type.name, map(self._key, numbers))
        for i, known in zip(numbers, cached_answers, strict=True):
            if known is None or not self._is_complete(self.requests[i], known):
                unknown.append(i)
            else:
                self.found[i] = known
        ready = [j for i in numbers if self.found[i] is not None for j in self.queue.ready(i, self.found[i])]
        return unknown + (self._unknown(ready) if ready else [])

    def _is_complete(self, request: Any, known: Any) -> bool:
        # What another backend left incomplete is no answer here.
        return self.is_fallback or self.request_type.is_complete(self.lm, request, known)


def can_score_texts(lm: LM) -> bool:
    """Whether a backend can score a given text: a chat server can't, nor can some that see pictures."""
    backend = lm.lm if isinstance(lm, CachingLM) else lm
    has_own = getattr(type(backend), SCORING_REQUEST_TYPE, token_scores) is not token_scores
    if has_own or type(backend).loglikelihood is TemplateLM.loglikelihood:
        return True
    try:
        with replaced(backend, enable_thinking=False):  # which is another reason to raise
            backend.loglikelihood([])  # those that can't raise before they look at a request
    except (NotImplementedError, ValueError, AssertionError):
        return False
    return True


def token_scores(lm: LM, requests: Sequence[Any]) -> list[TokenScores]:
    """Score each request's continuation given its context; ``args`` are ``(context, continuation)``.

    Requests may have two attributes. ``shared_prefixes`` (default True): whether prompts that begin alike may share
    that computation; one request of a call that may not keeps all of them from it, since one forward serves several
    tasks. ``temperatures`` (default False): whether the scores are wanted at a grid of temperatures, too.
    """
    return answers(lm, requests, TOKEN_SCORES)


def generated_texts(lm: LM, requests: Sequence[Any]) -> list[GeneratedText]:
    """Continue each request's context exactly as ``generate_until`` does; ``args`` are ``(context, gen_kwargs)``."""
    return answers(lm, requests, GENERATED_TEXTS)


def corpus_scores(lm: LM, requests: Sequence[Any]) -> list[CorpusScores]:
    """Score each text, every token of it given those before it in the stock run's rolling windows.

    ``args`` are ``(text,)``; the requests' attribute ``n_bins`` says for how many bins sums are wanted.
    """
    return answers(lm, requests, CORPUS_SCORES)


def install() -> None:
    """Add the request types to the harness's ``LM``."""
    setattr(LM, SCORING_REQUEST_TYPE, token_scores)
    setattr(LM, GENERATION_REQUEST_TYPE, generated_texts)
    setattr(LM, CORPUS_REQUEST_TYPE, corpus_scores)
    setattr(LM, FOLLOW_UP_REQUEST_TYPE, with_follow_ups)
