"""A confidence that the model itself stated in its answer or when it was questioned about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class StatedConfidence:
    """The probability of its answer being right, as the model stated it.

    Attributes:
        query: name of the wording that elicited it.
        confidence: 0 to 1; None where the reply is no probability.
    """

    query: str
    confidence: float | None

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"the confidence stated in reply to the query {self.query} is {self.confidence}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(data["query"], data["confidence"])
