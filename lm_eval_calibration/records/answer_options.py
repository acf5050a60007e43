"""Where the answer of a generated text is one of the doc's options: how probable each of them was in its place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lm_eval_calibration.records.numbers import log_from_json, log_to_json


@dataclass(frozen=True)
class AnswerOptions:
    """A doc's options in the place of its answer.

    Attributes:
        log_likelihoods: of the options, in nats, each given the prompt and the text before the answer, in the place of
            the answer's tokens.
        answer: index of the option that the model wrote.
        gold: index of the right one; None where the doc's target is none of them.
        k: where they were read from the most probable tokens at the answer's position, how many these were; None where
            each option was scored.
        bounded: indices of the options that are none of these tokens, whose log-likelihoods are upper bounds.
    """

    log_likelihoods: tuple[float, ...]
    answer: int
    gold: int | None
    k: int | None = None
    bounded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no metric could be computed from."""
        k = len(self.log_likelihoods)
        if not k or not sum(self.log_likelihoods) < math.inf:  # any nan or infinity makes the sum one
            raise ValueError(f"log_likelihoods of the options are {list(self.log_likelihoods)}")
        for name in ("answer", "gold"):
            index = getattr(self, name)
            if index is not None and not 0 <= index < k:
                raise ValueError(f"{name} is {index}, but there are {k} options")
        if not set(self.bounded) <= set(range(k)):
            raise ValueError(f"bounded is {list(self.bounded)}, but there are {k} options")

    @property
    def unassigned_mass(self) -> float | None:
        """The probability of everything but the options; None where these add up to more than 1, as "a" and "ab" may.

        What begins with the same tokens as another option includes that one.
        """
        known = (value for i, value in enumerate(self.log_likelihoods) if i not in self.bounded)
        assigned = math.fsum(map(math.exp, known))
        return max(0.0, 1 - assigned) if assigned <= 1 + 1e-6 else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        data = {**vars(self), "log_likelihoods": log_to_json(self.log_likelihoods), "bounded": list(self.bounded)}
        if self.k is None:
            del data["k"], data["bounded"]
        return data | {"unassigned_mass": self.unassigned_mass}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        log_likelihoods = tuple(log_from_json(data["log_likelihoods"]))
        return cls(log_likelihoods, data["answer"], data["gold"], data.get("k"), tuple(data.get("bounded", ())))
