"""Request types of our own: methods on the harness's base class ``LM``, dispatched by backend.

The evaluator calls ``getattr(lm, request_type)(requests)``, so a new method on ``LM`` reaches every backend and
replaces nothing. ``token_scores_v1`` scores a continuation; the number of bins is no argument of it: backends return
what every n_bins up to 100 needs. ``generated_tokens_v1`` goes on from a prompt as ``generate_until`` does.
``corpus_scores_v1`` scores every token of a text, and returns sums over the bins that the request asks for.
``followed_up_tokens_v1`` is ``generated_tokens_v1`` and after it requests about what was generated.
"""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from lm_eval.api.model import LM, CachingLM, TemplateLM, hash_args

from lm_eval_calibration.backends.api.first_token import is_of_first_token
from lm_eval_calibration.backends.corpus_scores import CorpusScores
from lm_eval_calibration.backends.fallback import (
    corpus as plain_corpus,
)
from lm_eval_calibration.backends.fallback import (
    generation as plain_generation,
)
from lm_eval_calibration.backends.fallback import (
    log_likelihood as plain,
)
from lm_eval_calibration.backends.follow_ups import answers_with_follow_ups
from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.switch import wants_temperatures
from lm_eval_calibration.backends.token_scores import TokenScores

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

REQUEST_TYPE = "token_scores_v1"
GENERATION_REQUEST_TYPE = "generated_tokens_v1"
CORPUS_REQUEST_TYPE = "corpus_scores_v1"
FOLLOWED_UP_REQUEST_TYPE = "followed_up_tokens_v1"

Keep = Callable[[int, Any], None]


class Scorer(Protocol):
    """A module of this package that answers requests of one type for one family of backends."""

    def refusal(self, lm: LM) -> str | None:
        """Why this scorer must not be used for ``lm`` (None: it may)."""

    def answer(self, lm: LM, requests: Sequence[Any], keep: Keep) -> None:
        """Answer every request; call ``keep(index, answer)`` as soon as each is known."""


@dataclass(frozen=True)
class RequestType:
    """How requests of a type are answered.

    Attributes:
        name: of the method on ``LM``.
        scorers: modules by the backend's class. By name: a backend's module is imported by the harness when it is
            used, never by us.
        fallback: the module for all other backends.
        gives: what a scorer knows that the fallback does not, and what is missing without it.
        is_complete: whether an answer has it, and what else a run asks the backend for.
        is_cached: whether a request is answered from ``--use_cache``.
        cached_by: what of a request, beside the type's name, the answer depends on.
    """

    name: str
    scorers: Mapping[str, str]
    fallback: Any
    gives: tuple[str, str]
    is_complete: Callable[[LM, Any], bool]
    is_cached: Callable[[Any], bool] = lambda _: True
    cached_by: Callable[[Any], Any] = lambda request: request.args


TOKEN_SCORES = RequestType(
    REQUEST_TYPE,
    {
        "lm_eval.models.huggingface.HFLM": "lm_eval_calibration.backends.hf.log_likelihood",
        "lm_eval.models.openai_completions.LocalChatCompletion": "lm_eval_calibration.backends.api.chat",
        "lm_eval.models.openai_completions.LocalCompletionsAPI": "lm_eval_calibration.backends.api.completions",
        "lm_eval.models.vllm_causallms.VLLM": "lm_eval_calibration.backends.engines.log_likelihood",
        "lm_eval.models.sglang_causallms.SGLangLM": "lm_eval_calibration.backends.engines.log_likelihood",
    },
    plain,
    ("token distributions", "full_ece is left out, all other metrics are complete"),
    lambda lm, answer: (
        is_of_first_token(answer)
        or (answer.has_distributions and (answer.temperatures is not None or not wants_temperatures(lm)))
    ),
)

GENERATED_TOKENS = RequestType(
    GENERATION_REQUEST_TYPE,
    {
        "lm_eval.models.huggingface.HFLM": "lm_eval_calibration.backends.hf.generation",
        "lm_eval.models.openai_completions.LocalCompletionsAPI": "lm_eval_calibration.backends.api.generation",
        "lm_eval.models.vllm_causallms.VLLM": "lm_eval_calibration.backends.engines.generation",
        "lm_eval.models.sglang_causallms.SGLangLM": "lm_eval_calibration.backends.engines.generation",
    },
    plain_generation,
    (
        "probabilities of the tokens that it writes",
        "its answers have no confidence, and the metrics of confidence are left out",
    ),
    # Texts alone are an answer where this backend gave no more.
    lambda lm, answer: answer.has_probabilities or answer.certificate.get("backend") == type(lm).__name__,
    # As in a stock run: else all samples of a prompt would be the first one.
    lambda request: not request.args[1].get("do_sample", False),
)

CORPUS_SCORES = RequestType(
    CORPUS_REQUEST_TYPE,
    {"lm_eval.models.huggingface.HFLM": "lm_eval_calibration.backends.hf.corpus"},
    plain_corpus,
    ("token distributions", "full_ece, ece and token_accuracy are left out, perplexities are complete"),
    lambda _, answer: answer.has_distributions,
    cached_by=lambda request: (*request.args, request.n_bins),
)


def scorer_for(lm: LM, request_type: RequestType = TOKEN_SCORES) -> Scorer:
    """Return the scorer of the backend's class or of the nearest base class that has one, else the fallback."""
    for cls in type(lm).__mro__:
        module = request_type.scorers.get(f"{cls.__module__}.{cls.__qualname__}")
        if module is None:
            continue
        scorer = cast(Scorer, importlib.import_module(module))
        reason = scorer.refusal(lm)
        if reason is None:
            return scorer
        break
    else:
        reason = request_type.fallback.REASON
    known, missing = request_type.gives
    logger.warning("%s gives no %s (%s): %s.", type(lm).__name__, known, reason, missing)
    return cast(Scorer, request_type.fallback)


def answers(lm: LM, requests: Sequence[Any], request_type: RequestType) -> list[Any]:
    """Answer requests of a type, in their order.

    With ``--use_cache`` every answer is stored as soon as it is known, and known answers are not computed again.
    """
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    found: list[Any] = [None] * len(requests)
    is_cached = cache is not None and request_type.is_cached
    keys = [
        hash_args(request_type.name, request_type.cached_by(request)) if is_cached and is_cached(request) else None
        for request in requests
    ]
    scorer = scorer_for(lm, request_type)
    for i, key in enumerate(keys):
        cached = None if cache is None or key is None else cache.get(key)
        # What another backend left incomplete is no answer where a complete one can be had.
        if cached is not None and (scorer is request_type.fallback or request_type.is_complete(lm, cached)):
            found[i] = cached
    todo = [i for i, answer in enumerate(found) if answer is None]

    def keep(index: int, answer: Any) -> None:
        found[todo[index]] = answer
        key = keys[todo[index]]
        if cache is not None and key is not None:
            cache[key] = answer

    if todo or lm.world_size > 1:  # other ranks may need this one's help with theirs
        scorer.answer(lm, [requests[i] for i in todo], keep)
    missing = [i for i, answer in enumerate(found) if answer is None]
    if missing:
        raise RuntimeError(f"{type(lm).__name__} left {len(missing)} of {len(requests)} requests unanswered")
    return found


def scores_texts(lm: LM) -> bool:
    """Whether a backend can score a text that it is given: a chat server can't, nor some that see pictures."""
    backend = lm.lm if isinstance(lm, CachingLM) else lm
    has_own = getattr(type(backend), REQUEST_TYPE, token_scores) is not token_scores
    if has_own or type(backend).loglikelihood is TemplateLM.loglikelihood:
        return True
    try:
        backend.loglikelihood([])  # those that can't say so before they look at a request
    except (NotImplementedError, ValueError, AssertionError):
        return False
    return True


def token_scores(lm: LM, requests: Sequence[Any]) -> list[TokenScores]:
    """Score each request's continuation given its context.

    Args:
        lm: any backend of the harness.
        requests: instances whose ``args`` are ``(context, continuation)``.

    Returns:
        One :class:`TokenScores` for each request, in the requests' order.
    """
    return answers(lm, requests, TOKEN_SCORES)


def generated_tokens(lm: LM, requests: Sequence[Any]) -> list[GeneratedText]:
    """Go on from each request's context, exactly as ``generate_until`` does.

    Args:
        lm: any backend of the harness.
        requests: instances whose ``args`` are ``(context, generation_kwargs)``.

    Returns:
        One :class:`GeneratedText` for each request, in the requests' order.
    """
    return answers(lm, requests, GENERATED_TOKENS)


def corpus_scores(lm: LM, requests: Sequence[Any]) -> list[CorpusScores]:
    """Score each text, every token of it given those before it in the stock run's rolling windows.

    Args:
        lm: any backend of the harness.
        requests: instances whose ``args`` are ``(text,)``, with the attribute ``n_bins``.

    Returns:
        One :class:`CorpusScores` for each request, in the requests' order.
    """
    return answers(lm, requests, CORPUS_SCORES)


def followed_up_tokens(lm: LM, requests: Sequence[Any]) -> list[GeneratedText]:
    """Go on from each request's context, then answer the requests that each text leads to.

    Args:
        lm: any backend of the harness.
        requests: as for :func:`generated_tokens`, each with the attribute ``follow_ups``: what makes, of the text,
            instances of other request types.

    Returns:
        One :class:`GeneratedText` for each request, in the requests' order, the answers in its ``asked``.
    """
    return answers_with_follow_ups(lm, requests, GENERATION_REQUEST_TYPE)


def install() -> None:
    """Add the request types to the harness's ``LM``."""
    setattr(LM, REQUEST_TYPE, token_scores)
    setattr(LM, GENERATION_REQUEST_TYPE, generated_tokens)
    setattr(LM, CORPUS_REQUEST_TYPE, corpus_scores)
    setattr(LM, FOLLOWED_UP_REQUEST_TYPE, followed_up_tokens)
