"""What a model said when it was asked how sure it is of its own answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """One model's judgement of one of its answers.

    Attributes:
        query: name of the wording in which it was asked.
        confidence: that the answer is right (0..1); None where what it said is no probability.
    """

    query: str
    confidence: float | None

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"the confidence that it answered the query {self.query} with is {self.confidence}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {"query": self.query, "confidence": self.confidence}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read it."""
        return cls(data["query"], data["confidence"])
