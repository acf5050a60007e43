"""Any backend: log-likelihoods as the backend itself gives them, and no token distributions."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.scoring.corpus_scores import CorpusScores
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
    for i, answer in enumerate(_answers(lm, "loglikelihood", requests)):
        if answer is not None:
            keep(i, TokenScores((float(answer[0]), bool(answer[1])), certificate=_certificate(lm)))


def corpus_scores(lm: Any, requests: Sequence[Any], keep: Callable[[int, CorpusScores], None]) -> None:
    """Ask the backend's own ``loglikelihood_rolling``, with the answers that ``--use_cache`` knows."""
    for i, answer in enumerate(_answers(lm, "loglikelihood_rolling", requests)):
        if answer is not None:
            keep(i, CorpusScores(float(answer), certificate=_certificate(lm)))


def _answers(lm: Any, request_type: str, requests: Sequence[Any]) -> list[Any]:
    """Return the backend's answers to a stock type of request; None where it gives none."""
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    known = [None if cache is None else cache.get(hash_args(request_type, request.args)) for request in requests]
    todo = [i for i, answer in enumerate(known) if answer is None]
    ask = getattr(lm, request_type)
    for i, answer in zip(todo, ask([requests[i] for i in todo]) if todo else [], strict=False):
        known[i] = answer
    return known


def _certificate(lm: Any) -> dict[str, Any]:
    return {"backend": type(lm).__name__, "distributions": "none", "versions": versions("lm-eval")}
