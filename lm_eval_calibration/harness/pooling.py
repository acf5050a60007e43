"""Numbers that pool: a group's metric is the metric of all its docs, not the mean of its tasks' metrics.

The harness computes a group's value as ``sum(value * size) / sum(sizes)`` and its standard error as
``sqrt(sum((size - 1) * stderr**2 * size) / ... / ...)``. The values here are ordinary floats to everyone else, but
remember their docs through exactly that arithmetic, and at its end stands the metric of all docs. Copies, pickles
and JSON hold the plain number.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self

from lm_eval_calibration.records import Record


class Pools(Protocol):
    """What computes a metric from records; equal ones compute the same."""

    def value(self, records: Sequence[Record]) -> float:
        """Return the metric over the records."""

    def not_pooled(self, other: Any) -> float:
        """Say that two tasks' docs can't be pooled (other bins, say) and return nan."""


class _Docs:
    """The docs behind a number, and what computes it of them."""

    def __init__(self, aggregation: Pools, records: Sequence[Record], other: Any = None) -> None:
        self.aggregation, self.records, self.other = aggregation, records, other

    def __add__(self, more: "_Docs") -> "_Docs":
        other = self.other or more.other or (None if more.aggregation == self.aggregation else more.aggregation)
        return _Docs(self.aggregation, [*self.records, *more.records], other)

    def value(self) -> float:
        if self.other is not None:
            return self.aggregation.not_pooled(self.other)
        # A task may stand in two subgroups of a group: each doc counts once.
        unique = {(r.task, r.doc_id) if r.doc_id is not None else id(r): r for r in self.records}
        return self.aggregation.value(list(unique.values()))


class _Remembering(float):
    """A float that knows the docs it is the metric of."""

    docs: _Docs

    def __new__(cls, value: float, aggregation: Pools, records: Sequence[Record]) -> Self:
        self = super().__new__(cls, value)
        self.docs = _Docs(aggregation, records)
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


class PooledValue(_Remembering):
    """A metric's value over a task's docs; ``sum(value * size) / sum(sizes)`` is its value over all the docs."""

    def __mul__(self, size: Any) -> Any:
        # Another size than the number of docs: the group averages its tasks unweighted (weight_by_size: false).
        return _WeightedSum(float(self) * size, self.docs if size == len(self.docs.records) else None)

    __rmul__ = __mul__


class _WeightedSum:
    """``sum(value * size)`` on its way to a group's value; without docs it is the harness's own mean."""

    def __init__(self, plain: float, docs: _Docs | None) -> None:
        self.plain, self.docs = plain, docs

    def __add__(self, other: Any) -> "_WeightedSum":
        if isinstance(other, _WeightedSum):
            docs = self.docs + other.docs if self.docs and other.docs else None
            return _WeightedSum(self.plain + other.plain, docs)
        return _WeightedSum(self.plain + other, self.docs if other == 0 else None)  # else a plain number's docs lack

    __radd__ = __add__

    def __truediv__(self, total: float) -> float:
        return self.docs.value() if self.docs else self.plain / total


class PooledStderr(_Remembering):
    """A metric's standard error over a task's docs; ``pooled_sample_stderr`` of several is that of all the docs."""

    def __pow__(self, exponent: Any, modulo: Any = None) -> Any:
        return _Variance(float(self) ** exponent, self.docs, by_size=False)


class _Variance:
    """A squared standard error on its way through ``pooled_sample_stderr``."""

    def __init__(self, plain: float, docs: _Docs | None, *, by_size: bool) -> None:
        self.plain, self.docs = plain, docs
        self.by_size = by_size  # False: the group averages its tasks unweighted, nothing to pool

    def __mul__(self, factor: Any) -> "_Variance":
        return _Variance(self.plain * factor, self.docs, by_size=True)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> "_Variance":
        if isinstance(other, _Variance):
            docs = self.docs + other.docs if self.docs and other.docs else None
            return _Variance(self.plain + other.plain, docs, by_size=self.by_size)
        return _Variance(self.plain + other, self.docs if other == 0 else None, by_size=self.by_size)

    __radd__ = __add__

    def __truediv__(self, divisor: float) -> "_Variance":
        return _Variance(self.plain / divisor if divisor else math.nan, self.docs, by_size=self.by_size)

    def sqrt(self) -> float:
        """Numpy calls this for ``np.sqrt``: the last step."""
        return self.docs.value() if self.docs and self.by_size else math.sqrt(self.plain)
