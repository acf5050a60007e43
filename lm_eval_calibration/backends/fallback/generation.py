"""Any backend: the text as the backend itself gives it, and no token probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import hash_args

from lm_eval_calibration.backends.generated_text import GeneratedText
from lm_eval_calibration.backends.versions import versions

REASON = "it returns texts only"


def refusal(lm: Any) -> str | None:
    """Never: every backend that generates has ``generate_until``."""
    return None


def answer(lm: Any, requests: Sequence[Any], keep: Callable[[int, GeneratedText], None]) -> None:
    """Ask the backend's own ``generate_until``; what ``--use_cache`` knows of stock requests is read first."""
    certificate = {"backend": type(lm).__name__, "token_probabilities": "none", "versions": versions("lm-eval")}
    cache = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    known = [
        None
        if cache is None or request.args[1].get("do_sample", False)
        else cache.get(hash_args("generate_until", request.args))
        for request in requests
    ]
    todo = [i for i, text in enumerate(known) if text is None]
    for i, text in zip(todo, lm.generate_until([requests[i] for i in todo]) if todo else [], strict=False):
        known[i] = text
    for i, text in enumerate(known):
        if text is not None:
            keep(i, GeneratedText(text, certificate=certificate))
