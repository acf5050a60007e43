"""One of several answers to a prompt, and the JSON form of its tokens' log-probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lm_eval_calibration.records.final_answer import ANSWERED, OUTCOMES
from lm_eval_calibration.records.numbers import log_from_json, log_to_json


@dataclass(frozen=True)
class Sample:
    """One of several generations for the same prompt.

    Attributes:
        text_hash: the harness's hash of the text.
        answer_hash: the same of the answer that the task's filter makes of the text.
        correct: 1 or 0, the task's own metric of that answer; None where that says something between.
        token_log_probs: as of :class:`Generation`.
        outcome: what became of the answer, as of :class:`FinalAnswer`; None in runs that were logged before there were
            outcomes, whose samples all count as answered.
        span: [start, end) characters of the text that the answer was taken from, as of :class:`FinalAnswer`.
        tokens: [start, end) of the text's tokens that spell these characters, as well.
    """

    text_hash: str
    answer_hash: str
    correct: int | None
    token_log_probs: tuple[float, ...] | None = None
    outcome: str | None = None
    span: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no outcome or no probability."""
        if self.correct not in (0, 1, None):
            raise ValueError(f"correct of a sample is {self.correct!r}, not 0 or 1")
        if self.outcome not in (None, *OUTCOMES):
            raise ValueError(f"outcome of a sample is {self.outcome!r}; there are {', '.join(OUTCOMES)}")
        check_log_probs(self.token_log_probs)

    @property
    def has_answer(self) -> bool:
        """Whether the text holds an answer."""
        return self.outcome in (None, ANSWERED)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; an infinite log-probability becomes null."""
        data = {name: getattr(self, name) for name in ("text_hash", "answer_hash", "correct")}
        data |= {} if self.outcome is None else {"outcome": self.outcome}
        data |= {name: list(ends) for name in _ENDS if (ends := getattr(self, name)) is not None}
        return data | log_probs_to_json(self.token_log_probs)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        ends = {name: tuple(data[name]) for name in _ENDS if data.get(name) is not None}
        return cls(**{**log_probs_from_json(data), **ends})


_ENDS = ("span", "tokens")


def check_log_probs(log_probs: Sequence[float] | None, name: str = "token_log_probs") -> None:
    """Raise ValueError for what is no natural-log probability."""
    for index, value in enumerate(log_probs or ()):
        if not value <= 0:  # nan included
            raise ValueError(f"{name}[{index}] is {value}; a probability is at most 1")


def log_probs_to_json(log_probs: Sequence[float] | None, name: str = "token_log_probs") -> dict[str, Any]:
    """Return log-probabilities under their key; nothing where there are none."""
    return {} if log_probs is None else {name: log_to_json(log_probs)}


def log_probs_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data with the log-probabilities that :func:`log_probs_to_json` wrote."""
    found = {name: data[name] for name in ("token_log_probs", "thought_log_probs") if data.get(name) is not None}
    return {**data, **{name: log_from_json(log_probs) for name, log_probs in found.items()}}
