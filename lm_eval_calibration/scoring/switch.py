"""Whether prompts that begin alike share that computation: a property of the run, told to the backend."""

from typing import Any

_ATTRIBUTE = "_calibration_shared_prefixes"


def set_shared_prefixes(lm: Any, enabled: bool) -> None:
    """Let prompts that begin alike share that computation (the default), or score each by itself.

    Backends that share nothing ignore it.
    """
    setattr(lm, _ATTRIBUTE, enabled)


def shared_prefixes(lm: Any) -> bool:
    """Return whether they may."""
    return bool(getattr(lm, _ATTRIBUTE, True))
