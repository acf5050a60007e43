"""Log-likelihoods in JSON, which has no infinity: minus infinity, a probability of 0, is null."""

import math
from collections.abc import Iterable
from typing import Any


def log_to_json(values: Iterable[float]) -> list[float | None]:
    """Return the numbers, with None for an infinite one."""
    return [float(x) if math.isfinite(x) else None for x in values]


def log_from_json(values: Iterable[float | None]) -> tuple[float, ...]:
    """Return the numbers, with minus infinity for None."""
    numbers: tuple[Any, ...] = tuple(values)
    return tuple([-math.inf if x is None else x for x in numbers]) if None in numbers else numbers
