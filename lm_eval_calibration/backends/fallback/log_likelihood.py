"""Any backend: log-likelihoods as the backend itself gives them, and no token distributions."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.backends.token_scores import TokenScores
from lm_eval_calibration.backends.versions import versions

REASON = "it returns log-likelihoods only"


def refusal(lm: Any) -> str | None:
    """Never: every backend has ``loglikelihood``."""
    return None


def answer(lm: Any, requests: Sequence[Any], keep: Callable[[int, TokenScores], None]) -> None:
    """Ask the backend's own ``loglikelihood``, whatever it does there.

    With ``--use_cache`` backends store single answers as they come, as stock log-likelihoods: an interrupted run (or
    a stock task of the same command) has paid for those, so they are read first.
    """
    certificate = {"backend": type(lm).__name__, "distributions": "none", "versions": versions("lm-eval")}
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    known = [None if cache is None else cache.get(hash_args("loglikelihood", request.args)) for request in requests]
    todo = [i for i, pair in enumerate(known) if pair is None]
    for i, pair in zip(todo, lm.loglikelihood([requests[i] for i in todo]) if todo else [], strict=False):
        known[i] = pair
    for i, pair in enumerate(known):
        if pair is not None:
            keep(i, TokenScores((float(pair[0]), bool(pair[1])), certificate=certificate))
