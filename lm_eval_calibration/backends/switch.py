"""What a run wants of its backend, told to the backend: shared computation, scores at several temperatures."""

from typing import Any

from lm_eval.api.model import CachingLM

_SHARED_PREFIXES, _TEMPERATURES = "_calibration_shared_prefixes", "_calibration_temperatures"


def set_shared_prefixes(lm: Any, enabled: bool) -> None:
    """Let prompts that begin alike share that computation (the default), or score each by itself.

    Backends that share nothing ignore it.
    """
    setattr(backend(lm), _SHARED_PREFIXES, enabled)


def shared_prefixes(lm: Any) -> bool:
    """Return whether they may."""
    return bool(getattr(lm, _SHARED_PREFIXES, True))


def set_temperatures(lm: Any, enabled: bool) -> None:
    """Let token scores hold a grid of temperatures, or not (the default). Backends that can't ignore it."""
    setattr(backend(lm), _TEMPERATURES, enabled)


def wants_temperatures(lm: Any) -> bool:
    """Return whether they should."""
    return bool(getattr(lm, _TEMPERATURES, False))


def backend(lm: Any) -> Any:
    """Return the backend itself where the harness has put its cache in front of it."""
    return lm.lm if isinstance(lm, CachingLM) else lm  # with --use_cache that one is asked
