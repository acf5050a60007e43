"""Any backend: log-likelihoods as the backend itself gives them, and no token distributions."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.scoring.token_scores import TokenScores
from lm_eval_calibration.scoring.versions import versions


def refusal(lm: Any) -> str | None:
    """Never: every backend has ``loglikelihood``."""
    return None


def token_scores(lm: Any, requests: Sequence[Any], keep: Callable[[int, TokenScores], None]) -> None:
    """Ask the backend's own ``loglikelihood``, whatever it does there.

    With ``--use_cache`` backends store single answers as they come, as stock log-likelihoods: an interrupted run (or
    a stock task of the same command) has paid for those, so they are read first.
    """
    certificate = {"backend": type(lm).__name__, "distributions": "none", "versions": versions("lm-eval")}
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    known = [None if cache is None else cache.get(hash_args("loglikelihood", request.args)) for request in requests]
    todo = [i for i, answer in enumerate(known) if answer is None]
    for i, answer in zip(todo, lm.loglikelihood([requests[i] for i in todo]) if todo else [], strict=False):
        known[i] = answer
    for i, answer in enumerate(known):
        if answer is not None:
            keep(i, TokenScores((float(answer[0]), bool(answer[1])), certificate=certificate))
