"""What every recalibration map has: fitted on some docs, applied to others, written as JSON and read again."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np

FORMAT = 1
"""Version of the form in which maps are written; others are refused."""

Takes = Literal["choices", "confidence", "groups", "tokens"]


class RecalibrationWarning(UserWarning):
    """A map could not be fitted as requested; the message says why and what was done instead."""


def warn(reason: str) -> None:
    """Warn that a map is not what was requested."""
    warnings.warn(reason, RecalibrationWarning, stacklevel=3)


@dataclass
class Recalibrator(ABC):
    """A map from what a model says to what it should say.

    Attributes:
        method: name of the method.
        takes: what it maps. "choices": the log-likelihoods of all choices to a distribution, fitted on the gold
            choices. "confidence": the answer's confidence to another one, fitted on correct; the distribution over
            the other choices stays unknown. "groups": the same of docs whose fields are known.

    Parameters are dataclass fields, None before ``fit``.
    """

    method: ClassVar[str]
    takes: ClassVar[Takes]

    @abstractmethod
    def fit(self, inputs: Any, targets: Any) -> Self:
        """Fit the map to docs: (log-likelihoods, labels) or (confidence, correct)."""

    @abstractmethod
    def predict_proba(self, inputs: Any) -> Any:
        """Return recalibrated probabilities of other docs: of all choices, or of the answer."""

    @classmethod
    @abstractmethod
    def identity(cls) -> Self:
        """Return the map of this method that changes nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted map as JSON-ready data."""
        names, values = [f.name for f in fields(self)], self._parameters()
        lists = (list(value) if isinstance(value, tuple) else value for value in values)
        return {"format": FORMAT, "method": self.method, **dict(zip(names, lists, strict=True))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: another format version or method, or parameters missing or unknown.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"format version {data.get('format')!r} of the map is not {FORMAT}")
        if data.get("method") != cls.method:
            raise ValueError(f"the map's method is {data.get('method')!r}, not {cls.method!r}")
        parameters = {name: value for name, value in data.items() if name not in ("format", "method")}
        names = {f.name for f in fields(cls)}
        if set(parameters) != names or any(value is None for value in parameters.values()):
            raise ValueError(f"a {cls.method} map has {', '.join(sorted(names))}; this one is {parameters}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in parameters.items()})

    def _parameters(self) -> tuple[Any, ...]:
        """Return the fitted parameters."""
        parameters = tuple(getattr(self, f.name) for f in fields(self))
        if any(parameter is None for parameter in parameters):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {self.method} map is not fitted: call fit first")
        return parameters


def floats(values: Any) -> tuple[float, ...]:
    """Return an array as a tuple of plain floats."""
    return tuple(np.asarray(values, dtype=np.float64).tolist())
