"""Any backend: log-likelihoods of texts as the backend itself gives them, and no sums over their tokens."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.backends.corpus_scores import CorpusScores
from lm_eval_calibration.backends.versions import versions

REASON = "it returns log-likelihoods only"


def refusal(lm: Any) -> str | None:
    """Never: every backend has ``loglikelihood_rolling``."""
    return None


def answer(lm: Any, requests: Sequence[Any], keep: Callable[[int, CorpusScores], None]) -> None:
    """Ask the backend's own ``loglikelihood_rolling``, after the answers that ``--use_cache`` knows of it."""
    certificate = {"backend": type(lm).__name__, "distributions": "none", "versions": versions("lm-eval")}
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    keys = [hash_args("loglikelihood_rolling", request.args) for request in requests]
    known: list[Any] = [None if cache is None else cache.get(key) for key in keys]
    todo = [i for i, log_likelihood in enumerate(known) if log_likelihood is None]
    asked = lm.loglikelihood_rolling([requests[i] for i in todo]) if todo else []
    for i, log_likelihood in zip(todo, asked, strict=True):
        known[i] = log_likelihood
    for i, log_likelihood in enumerate(known):
        keep(i, CorpusScores(float(log_likelihood), certificate=certificate))
