"""Which function answers which type of request, for which class of the harness's backends.

A backend is one file: each of its functions declares by :func:`register` what it answers. Classes are registered by
name, because the harness imports a backend's module when it is used, and we never do.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

SCORING_REQUEST_TYPE = "token_scores_v1"
GENERATION_REQUEST_TYPE = "generated_tokens_v1"
CORPUS_REQUEST_TYPE = "corpus_scores_v1"
FOLLOW_UP_REQUEST_TYPE = "followed_up_tokens_v1"
"""Names of the methods on ``LM``. Other processes and caches know them."""

Deliver = Callable[[int, Any], Any]
"""Takes a request's number and its answer, as soon as the answer is known. It may return requests that waited for
it, whose numbers follow those of all before: a backend may answer them in this call; the others are sent in another."""

Answer = Callable[[Any, Sequence[Any], Deliver], None]
"""Answers all requests of one call for a backend."""

_OURS = {
    "lm_eval.models.huggingface": ("hf.log_likelihood", "hf.generation", "hf.corpus"),
    "lm_eval.models.openai_completions": ("api.completions", "api.chat", "api.generation"),
    "lm_eval.models.vllm_causallms": ("engines.vllm",),
    "lm_eval.models.sglang_causallms": ("engines.sglang",),
}
"""Modules of this package to import when a backend's class, or a base class of it, is in a module of the harness:
they need the same heavy packages."""


class _Registered(NamedTuple):
    answer: Answer
    stock_methods: tuple[str, ...]
    reason_unsupported: Callable[[Any], str | None]


_REGISTERED: dict[tuple[str, str], _Registered] = {}


def register(
    *class_names: str,
    request_type: str,
    stock_methods: Sequence[str] = (),
    reason_unsupported: Callable[[Any], str | None] = lambda _: None,
) -> Callable[[Answer], Answer]:
    """Let the decorated function answer requests of a type for backends of these classes and their subclasses.

    Args:
        class_names: module and qualified name of each.
        request_type: name of the method on ``LM``.
        stock_methods: methods of the class that the function relies on. A subclass with its own version of one is
            left to the fallback, so that its version is not ignored.
        reason_unsupported: what else keeps the function from answering for a backend (None: nothing does).
    """

    def add(answer: Answer) -> Answer:
        registered = _Registered(answer, tuple(stock_methods), reason_unsupported)
        _REGISTERED.update({(name, request_type): registered for name in class_names})
        return answer

    return add


def find(lm: Any, request_type: str) -> tuple[Answer | None, str]:
    """Return the function for the backend's class or its nearest registered base class.

    Where there is none: None, and the reason, which is "" for a class that nothing is known of.
    """
    for cls in type(lm).__mro__:
        for module in _OURS.get(cls.__module__, ()):
            import_module(f"{__package__}.{module}")
        registered = _REGISTERED.get((f"{cls.__module__}.{cls.__qualname__}", request_type))
        if registered is not None:
            for name in registered.stock_methods:
                if getattr(type(lm), name) is not getattr(cls, name):
                    return None, f"it has a {name} of its own"
            reason = registered.reason_unsupported(lm)
            return (registered.answer, "") if reason is None else (None, reason)
    return None, ""
