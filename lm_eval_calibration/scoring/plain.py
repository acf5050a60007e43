"""Any backend: log-likelihoods as the backend itself gives them, and no token distributions."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval_calibration.scoring.token_scores import TokenScores
from lm_eval_calibration.scoring.versions import versions


def refusal(lm: Any) -> str | None:
    """Never: every backend has ``loglikelihood``."""
    return None


def token_scores(lm: Any, requests: Sequence[Any], keep: Callable[[int, TokenScores], None]) -> None:
    """Ask the backend's own ``loglikelihood``, whatever it does there."""
    certificate = {"backend": type(lm).__name__, "distributions": "none", "versions": versions("lm-eval")}
    for index, answer in enumerate(lm.loglikelihood(requests)):
        keep(index, TokenScores((float(answer[0]), bool(answer[1])), certificate=certificate))
