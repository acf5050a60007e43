"""The request types ``token_scores_v1`` and ``corpus_scores_v1``: methods on the harness's base class ``LM``.

The evaluator calls ``getattr(lm, request_type)(requests)``, so a new method on ``LM`` reaches every backend and
replaces nothing. It is dispatched by backend. Of a continuation a backend returns what every n_bins up to 100 needs;
of a corpus the sums over bins that the request asks for.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from lm_eval.api.model import LM, hash_args

from lm_eval_calibration.scoring import plain
from lm_eval_calibration.scoring.corpus_scores import CorpusScores
from lm_eval_calibration.scoring.token_scores import TokenScores

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

REQUEST_TYPE = "token_scores_v1"
CORPUS_REQUEST_TYPE = "corpus_scores_v1"

Score = Callable[[LM, Sequence[Any], Callable[[int, Any], None]], None]
"""Scores every request; calls ``keep(index, scores)`` as soon as each is known."""


class Scorer(Protocol):
    """A module of this package that scores for one family of backends: it has functions of the types' names, too."""

    def refusal(self, lm: LM) -> str | None:
        """Why this scorer must not be used for ``lm`` (None: it may)."""


# By name: a backend's module is imported by the harness when it is used, never by us.
_SCORERS = {
    "token_scores": {"lm_eval.models.huggingface.HFLM": "lm_eval_calibration.scoring.hf"},
    "corpus_scores": {"lm_eval.models.huggingface.HFLM": "lm_eval_calibration.scoring.hf_corpus"},
}

_LEFT_OUT = {
    "token_scores": "full_ece is left out, all other metrics are complete",
    "corpus_scores": "full_ece, ece and token_accuracy are left out, perplexities are complete",
}


def scorer_for(lm: LM, method: str) -> Scorer:
    """Return the scorer of the backend's class or of the nearest base class that has one, else the plain one."""
    for cls in type(lm).__mro__:
        module = _SCORERS[method].get(f"{cls.__module__}.{cls.__qualname__}")
        if module is None:
            continue
        scorer = cast(Scorer, importlib.import_module(module))
        reason = scorer.refusal(lm)
        if reason is None:
            return scorer
        break
    else:
        reason = "it returns log-likelihoods only"
    logger.warning("%s gives no token distributions (%s): %s.", type(lm).__name__, reason, _LEFT_OUT[method])
    return cast(Scorer, plain)


def token_scores(lm: LM, requests: Sequence[Any]) -> list[TokenScores]:
    """Score each request's continuation given its context.

    Args:
        lm: any backend of the harness.
        requests: instances whose ``args`` are ``(context, continuation)``.

    Returns:
        One :class:`TokenScores` for each request, in the requests' order. With ``--use_cache`` every answer is
        stored as soon as it is known, and known answers are not computed again.
    """
    return _answers(lm, requests, "token_scores", [(REQUEST_TYPE, request.args) for request in requests])


def corpus_scores(lm: LM, requests: Sequence[Any]) -> list[CorpusScores]:
    """Score each text, every token of it given those before it in the stock run's rolling windows.

    Args:
        lm: any backend of the harness.
        requests: instances whose ``args`` are ``(text,)``, with the attribute ``n_bins``.

    Returns:
        One :class:`CorpusScores` for each request, in the requests' order; cached as :func:`token_scores` are.
    """
    keys = [(f"{CORPUS_REQUEST_TYPE}, {request.n_bins} bins", request.args) for request in requests]
    return _answers(lm, requests, "corpus_scores", keys)


def _answers(lm: LM, requests: Sequence[Any], method: str, keys: Sequence[tuple[str, Any]]) -> list[Any]:
    """Return the answers of the backend's scorer, in the requests' order, those in its cache not asked again."""
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    answers: list[Any] = [None] * len(requests)
    hashes = [hash_args(*key) for key in keys] if cache is not None else []
    scorer = scorer_for(lm, method)
    if cache is not None:
        # What another backend left without distributions is no answer where they can be had.
        cached = [cache.get(key) for key in hashes]
        answers = [a if a is not None and (scorer is plain or a.has_distributions) else None for a in cached]
    todo = [i for i, answer in enumerate(answers) if answer is None]

    def keep(index: int, scores: Any) -> None:
        answers[todo[index]] = scores
        if cache is not None:
            cache[hashes[todo[index]]] = scores

    if todo or lm.world_size > 1:  # other ranks may need this one's help with theirs
        score: Score = getattr(scorer, method)
        score(lm, [requests[i] for i in todo], keep)
    missing = [i for i, answer in enumerate(answers) if answer is None]
    if missing:
        raise RuntimeError(f"{type(lm).__name__} left {len(missing)} of {len(requests)} requests unanswered")
    return answers


def install() -> None:
    """Add the request types to the harness's ``LM``."""
    setattr(LM, REQUEST_TYPE, token_scores)
    setattr(LM, CORPUS_REQUEST_TYPE, corpus_scores)
