"""The request type ``token_scores_v1``: one method on the harness's base class ``LM``, dispatched by backend.

The evaluator calls ``getattr(lm, request_type)(requests)``, so a new method on ``LM`` reaches every backend and
replaces nothing. The number of bins is no argument of it: backends return what every n_bins up to 100 needs.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from lm_eval.api.model import LM, hash_args

from lm_eval_calibration.scoring import plain
from lm_eval_calibration.scoring.token_scores import TokenScores

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

REQUEST_TYPE = "token_scores_v1"

Keep = Callable[[int, TokenScores], None]


class Scorer(Protocol):
    """A module of this package that scores for one family of backends."""

    def refusal(self, lm: LM) -> str | None:
        """Why this scorer must not be used for ``lm`` (None: it may)."""

    def token_scores(self, lm: LM, requests: Sequence[Any], keep: Keep) -> None:
        """Score every request; call ``keep(index, scores)`` as soon as each is known."""


# By name: a backend's module is imported by the harness when it is used, never by us.
_SCORERS = {
    "lm_eval.models.huggingface.HFLM": "lm_eval_calibration.scoring.hf",
    "lm_eval.models.openai_completions.LocalCompletionsAPI": "lm_eval_calibration.scoring.completions",
}


def scorer_for(lm: LM) -> Scorer:
    """Return the scorer of the backend's class or of the nearest base class that has one, else the plain one."""
    for cls in type(lm).__mro__:
        module = _SCORERS.get(f"{cls.__module__}.{cls.__qualname__}")
        if module is None:
            continue
        scorer = cast(Scorer, importlib.import_module(module))
        reason = scorer.refusal(lm)
        if reason is None:
            return scorer
        break
    else:
        reason = "it returns log-likelihoods only"
    logger.warning(
        "%s gives no token distributions (%s): full_ece is left out, all other metrics are complete.",
        type(lm).__name__,
        reason,
    )
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
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    answers: list[TokenScores | None] = [None] * len(requests)
    keys = [hash_args(REQUEST_TYPE, request.args) for request in requests] if cache is not None else []
    scorer = scorer_for(lm)
    if cache is not None:
        # What another backend left without distributions is no answer where they can be had.
        cached = [cache.get(key) for key in keys]
        answers = [a if a is not None and (scorer is plain or a.has_distributions) else None for a in cached]
    todo = [i for i, answer in enumerate(answers) if answer is None]

    def keep(index: int, scores: TokenScores) -> None:
        answers[todo[index]] = scores
        if cache is not None:
            cache[keys[todo[index]]] = scores

    if todo or lm.world_size > 1:  # other ranks may need this one's help with theirs
        scorer.token_scores(lm, [requests[i] for i in todo], keep)
    missing = [i for i, answer in enumerate(answers) if answer is None]
    if missing:
        raise RuntimeError(f"{type(lm).__name__} left {len(missing)} of {len(requests)} requests unanswered")
    return cast(list[TokenScores], answers)


def install() -> None:
    """Add the request type to the harness's ``LM``."""
    setattr(LM, REQUEST_TYPE, token_scores)
