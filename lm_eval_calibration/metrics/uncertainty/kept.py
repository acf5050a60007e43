"""Estimates that are asked for again: of a run that is compared with every other one on the same docs."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from lm_eval_calibration.metrics.uncertainty.intervals import Estimate

_KEPT: ContextVar[dict[Any, Estimate] | None] = ContextVar("estimates", default=None)


@contextmanager
def estimates_kept() -> Iterator[None]:
    """Compute no estimate twice within: of one metric, equal arrays and equal options."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept(
    compute: Callable[..., Estimate], metric: Any, first: Any, second: Any, options: Mapping[str, Any]
) -> Estimate:
    """Return the estimate of a metric, from before where it is known; one that is undefined warns each time anew."""
    if (known := _KEPT.get()) is None:
        return compute(first, second, **options)
    digest = hashlib.sha256()
    cluster = options.get("cluster")
    for array in (first, second, *(() if cluster is None else (cluster,))):
        for values in map(np.asarray, array if isinstance(array, list | tuple) else [array]):
            if values.dtype.hasobject:  # its bytes are addresses
                return compute(first, second, **options)
            digest.update(f"{values.shape}{values.dtype}".encode() + values.tobytes())
        digest.update(b"|")
    own = sorted((name, value) for name, value in options.items() if name != "cluster")
    key = metric, digest.digest(), *own
    if key in known:
        return known[key]
    found = compute(first, second, **options)
    if not np.isnan([found.low, found.high]).any():
        known[key] = found
    return found
