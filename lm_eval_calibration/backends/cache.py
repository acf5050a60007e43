"""What ``--use_cache`` holds."""

from collections.abc import Iterable, MutableMapping
from typing import Any

from lm_eval.api.model import hash_args


def database(lm: Any) -> MutableMapping[str, Any] | None:
    """Return the harness's cache of a backend's answers; None where the run has none."""
    found: MutableMapping[str, Any] | None = getattr(getattr(lm, "cache_hook", None), "dbdict", None)
    return found


def cached(lm: Any, method: str, arguments: Iterable[Any]) -> list[Any]:
    """Return the cached answer to each of these arguments of a backend's method; None where there is none.

    Arguments that are None are of a request that is never cached.
    """
    cache = database(lm)
    return [None if cache is None or a is None else _read(cache, hash_args(method, a)) for a in arguments]


def _read(cache: MutableMapping[str, Any], key: str) -> Any:
    try:
        return cache.get(key)
    except (ImportError, AttributeError):  # pickled by a version of this package that had its classes elsewhere
        return None
