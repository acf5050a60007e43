"""Whether prompts that begin alike share that computation: a property of the run, told to the backend."""

from typing import Any

from lm_eval.api.model import CachingLM

_ATTRIBUTE = "_calibration_shared_prefixes"


def set_shared_prefixes(lm: Any, enabled: bool) -> None:
    """Let prompts that begin alike share that computation (the default), or score each by itself.

    Backends that share nothing ignore it.
    """
    backend = lm.lm if isinstance(lm, CachingLM) else lm  # with --use_cache that one is asked
    setattr(backend, _ATTRIBUTE, enabled)


def shared_prefixes(lm: Any) -> bool:
    """Return whether they may."""
    return bool(getattr(lm, _ATTRIBUTE, True))
