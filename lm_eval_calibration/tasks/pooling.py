"""Numbers that pool: a group's metric is the metric of all its docs, not the mean of its tasks' metrics.

The harness computes a group's value as ``sum(value * size) / sum(sizes)`` and its standard error as
``sqrt(sum((size - 1) * stderr**2 * size) / ... / ...)``. The values here are ordinary floats to everyone else, but
remember their docs through exactly that arithmetic, and at its end stands the metric of all docs. Copies, pickles
and JSON hold the plain number.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

from lm_eval_calibration.records import Record

Compute = Callable[[Sequence[Record]], Any]


class _Remembering(float):
    """A float that knows the docs it is the metric of and how to compute it."""

    compute: Compute
    records: Sequence[Record]

    def __new__(cls, value: float, compute: Compute, records: Sequence[Record]) -> Self:
        self = super().__new__(cls, value)
        self.compute = compute
        self.records = records
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


class PooledValue(_Remembering):
    """A metric's value over a task's docs; ``sum(value * size) / sum(sizes)`` is its value over all the docs."""

    def __mul__(self, size: Any) -> Any:
        return _WeightedSum(float(self) * size, self.compute, self.records, size == len(self.records))

    __rmul__ = __mul__


class _WeightedSum:
    """``sum(value * size)`` on its way to a group's value."""

    def __init__(self, plain: float, compute: Compute, records: Sequence[Record], pools: bool) -> None:
        self.plain, self.compute, self.records = plain, compute, records
        # False once a size is not the number of docs (weight_by_size: false) or a plain number was added.
        self.pools = pools

    def __add__(self, other: Any) -> "_WeightedSum":
        if isinstance(other, _WeightedSum):
            records = [*self.records, *other.records]
            return _WeightedSum(self.plain + other.plain, self.compute, records, self.pools and other.pools)
        return _WeightedSum(self.plain + other, self.compute, self.records, self.pools and other == 0)

    __radd__ = __add__

    def __truediv__(self, total: float) -> float:
        return float(self.compute(self.records)) if self.pools else self.plain / total


class PooledStderr(_Remembering):
    """A metric's standard error over a task's docs; ``pooled_sample_stderr`` of several is that of all the docs."""

    def __pow__(self, exponent: Any, modulo: Any = None) -> Any:
        return _Variance(float(self) ** exponent, self.compute, self.records, by_size=False)


class _Variance:
    """A squared standard error on its way through ``pooled_sample_stderr``."""

    def __init__(self, plain: float, compute: Compute | None, records: Sequence[Record], by_size: bool) -> None:
        self.plain, self.compute, self.records = plain, compute, records
        self.by_size = by_size  # False: the group averages its tasks unweighted, nothing to pool

    def __mul__(self, factor: Any) -> "_Variance":
        return _Variance(self.plain * factor, self.compute, self.records, by_size=True)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> "_Variance":
        if isinstance(other, _Variance):
            compute = self.compute if other.compute else None
            return _Variance(self.plain + other.plain, compute, [*self.records, *other.records], self.by_size)
        compute = self.compute if other == 0 else None  # a plain number was added: its docs are unknown
        return _Variance(self.plain + other, compute, self.records, self.by_size)

    __radd__ = __add__

    def __truediv__(self, divisor: float) -> "_Variance":
        plain = self.plain / divisor if divisor else math.nan
        return _Variance(plain, self.compute, self.records, self.by_size)

    def sqrt(self) -> float:
        """Numpy calls this for ``np.sqrt``: the last step."""
        if self.compute and self.by_size:
            return float(self.compute(self.records))
        return math.sqrt(self.plain)
