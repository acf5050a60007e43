"""Where in a generated text its final answer stands, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

ANSWERED, TRUNCATED, NOT_FOUND, EMPTY, REFUSED = OUTCOMES = ("answered", "truncated", "not_found", "empty", "refused")
"""What can become of a generated answer.

``truncated``: a thought was not closed, or the limit of tokens came before an answer; ``not_found``: the task's filter
finds none in the text; ``refused``: the task says that the text is a refusal.
"""


@dataclass(frozen=True)
class FinalAnswer:
    """What became of a generated answer, and the part of the text that it was taken from.

    Attributes:
        outcome: one of ``OUTCOMES``.
        span: [start, end) characters of the text that the scored filter took the answer from; None where there is no
            answer, or the text does not show it as the filter gives it.
        tokens: [start, end) of the text's tokens that spell these characters, parts of tokens included; None where that
            is not known.
        tail: of how many tokens before the answer the tail's confidence is; None where that was not wanted.
    """

    outcome: str
    span: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    tail: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no outcome, and parts of texts that can't be."""
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}; there are {', '.join(OUTCOMES)}")
        for name, ends in (("span", self.span), ("tokens", self.tokens)):
            if ends is not None and not 0 <= ends[0] <= ends[1]:
                raise ValueError(f"{name} of an answer is {ends!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items() if v is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        ends = {name: tuple(data[name]) for name in ("span", "tokens") if data.get(name) is not None}
        return cls(data["outcome"], **ends, tail=data.get("tail"))


@dataclass(frozen=True)
class ChainConfidence:
    """How sure the model was along its chain of thought (Fu et al. 2025, arXiv:2508.15260).

    The confidence of a token is minus the mean log-probability of the k most probable tokens at its position, in nats:
    large where few tokens have all the mass. It is no probability, and only ranks answers.

    Attributes:
        k: tokens that the mean is of.
        window: tokens of each window.
        n_tokens: of the thought.
        sums: of the tokens' confidences, window after window; the last window may be shorter.
    """

    k: int
    window: int
    n_tokens: int
    sums: tuple[float, ...]

    @classmethod
    def of(cls, mean_top_k: Sequence[float], *, k: int, window: int) -> Self:
        """Sum up the confidences of a thought's tokens."""
        parts = (mean_top_k[i : i + window] for i in range(0, len(mean_top_k), window))
        return cls(k, window, len(mean_top_k), tuple(float(np.sum(part)) for part in parts))

    @property
    def means(self) -> list[float]:
        """Mean confidence of each window; one that is shorter than the others counts if it is the only one."""
        whole = self.n_tokens // self.window
        if not whole:
            return [self.sums[0] / self.n_tokens] if self.n_tokens else []
        return [value / self.window for value in self.sums[:whole]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {**vars(self), "sums": list(self.sums)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(data["k"], data["window"], data["n_tokens"], tuple(data["sums"]))


@dataclass(frozen=True)
class BudgetedAnswer:
    """The answer that the model gave when its thought was cut.

    Attributes:
        budget: tokens of the thought that it had.
        n_tokens: tokens of its thought, of which these are the first; fewer than the budget where it thought less.
        outcome: one of ``OUTCOMES``.
        correct: 1 or 0, the task's own metric of the answer; None where that says something between.
        confidence: the product of the probabilities of the answer's tokens; None where they are not known.
    """

    budget: int
    n_tokens: int
    outcome: str
    correct: int | None
    confidence: float | None

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"the confidence of the answer after {self.budget} tokens is {self.confidence}")

    @classmethod
    def read_all(cls, data: Sequence[Mapping[str, Any]]) -> tuple[Self, ...]:
        """Read what :meth:`write_all` wrote."""
        return tuple(cls(**one) for one in data)

    @staticmethod
    def write_all(answers: Sequence["BudgetedAnswer"]) -> list[dict[str, Any]]:
        """Return JSON-ready data."""
        return [dict(vars(answer)) for answer in answers]
