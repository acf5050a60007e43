"""The record of a doc whose answer was generated: the probabilities of its tokens, and the confidences made of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from lm_eval_calibration.records.numbers import log_from_json, log_to_json
from lm_eval_calibration.records.record import AnswerRecord, ScoredAnswer, json_field

CONFIDENCES = ("pavg", "pgeo", "ptot", "pmin")
"""Names of the confidences of a generation; the first is what ``Record.confidence`` is."""


@dataclass(frozen=True)
class Sample:
    """One of several generations for the same prompt.

    Attributes:
        text_hash: the harness's hash of the text.
        answer_hash: the same of the answer that the task's filter makes of the text.
        correct: 1 or 0, the task's own metric of that answer; None where that says something between.
        token_log_probs: as of :class:`Generation`.
    """

    text_hash: str
    answer_hash: str
    correct: int | None
    token_log_probs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no outcome or no probability."""
        if self.correct not in (0, 1, None):
            raise ValueError(f"correct of a sample is {self.correct!r}, not 0 or 1")
        _check_log_probs(self.token_log_probs)


@dataclass(frozen=True)
class Generation:
    """The answer of a record of kind ``generation``.

    Attributes:
        text_hash: the harness's hash of the text; the text itself is in the line's ``resps``.
        metric: the task's own metric that says whether the answer is right.
        filter: the task's filter that made the answer of the text.
        correct: 1 or 0, the value of that metric; None where it was not computed or says something between.
        token_log_probs: natural-log probabilities of the emitted tokens that the text consists of, by the model itself
            (temperature 1, no warper), whatever they were chosen by. Tokens that only end the text (the end token, a
            stop string) are not among them; one that the stop string cuts in two is. None where the backend gives
            none.
        samples: all generations for the prompt, this one included, where there were several; else empty.
    """

    text_hash: str
    metric: str
    filter: str
    correct: int | None
    token_log_probs: tuple[float, ...] | None = None
    samples: tuple[Sample, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no outcome or no probability."""
        if self.correct not in (0, 1, None):
            raise ValueError(f"correct is {self.correct!r}, not 0 or 1")
        _check_log_probs(self.token_log_probs)

    @property
    def undefined(self) -> str | None:
        """Why the answer has no confidence (None: it has one)."""
        if self.token_log_probs is None:
            return "the backend gives no token probabilities"
        return None if self.token_log_probs else "the answer is empty"

    @property
    def confidences(self) -> dict[str, float] | None:
        """``pavg`` mean(q_t), ``pgeo`` exp(mean(log q_t)), ``ptot`` prod(q_t) and ``pmin`` min(q_t), in [0, 1].

        None where they are undefined. Source: ``pavg`` after Spiess et al. 2024, arXiv:2402.02047.
        """
        if not self.token_log_probs:
            return None
        log_probs = np.asarray(self.token_log_probs, dtype=np.float64)
        values = np.exp(log_probs).mean(), np.exp(log_probs.mean()), np.exp(log_probs.sum()), np.exp(log_probs.min())
        return dict(zip(CONFIDENCES, map(float, values), strict=True))

    @property
    def confidence(self) -> float | None:
        """``pavg``; None where it is undefined."""
        return None if self.confidences is None else self.confidences[CONFIDENCES[0]]

    @property
    def majority(self) -> tuple[float, int | None] | None:
        """Share of the samples that give the most frequent answer (the first of equals), and whether it is right.

        None where there were no several samples.
        """
        if not self.samples:
            return None
        counts = Counter(sample.answer_hash for sample in self.samples)  # in the order in which they came
        answer, count = counts.most_common(1)[0]
        correct = next(sample.correct for sample in self.samples if sample.answer_hash == answer)
        return count / len(self.samples), correct

    def to_dict(self) -> dict[str, Any]:
        """Return the generation as JSON-ready data; an infinite log-probability becomes null."""
        data: dict[str, Any] = {"text_hash": self.text_hash, "metric": self.metric, "filter": self.filter}
        data |= {"confidences": self.confidences}
        if self.undefined:
            data["undefined"] = self.undefined
        data |= _log_probs_to_json(self.token_log_probs)
        if self.samples:
            data["samples"] = [
                {
                    **{name: getattr(sample, name) for name in ("text_hash", "answer_hash", "correct")},
                    **_log_probs_to_json(sample.token_log_probs),
                }
                for sample in self.samples
            ]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a generation and, from beside it in the record, ``correct``."""
        fields = {key: value for key, value in data.items() if key not in ("confidences", "undefined")}
        samples = tuple(Sample(**_from_json(sample)) for sample in fields.pop("samples", ()))
        return cls(**_from_json(fields), samples=samples)


@dataclass(frozen=True, kw_only=True)
class GenerationRecord(AnswerRecord):
    """A doc whose answer the model generated.

    Attributes:
        generation: what the model wrote, and whether it is right.
    """

    kind: ClassVar[str] = "generation"

    generation: Generation = json_field(Generation.from_dict, Generation.to_dict)

    @property
    def confidence(self) -> float | None:
        """``pavg`` of the generation; None where it is undefined."""
        return self.generation.confidence

    @property
    def correct(self) -> int | None:
        """1 if the generated answer is right, else 0; None where nobody can tell."""
        return self.generation.correct

    def self_consistent(self) -> ScoredAnswer:
        """Return the most frequent answer of the samples, its share as its confidence."""
        if self.generation.majority is None:
            raise ValueError(f"{self.label}: it was not answered several times")
        return ScoredAnswer(self.task, self.doc_id, *self.generation.majority)

    @classmethod
    def _from_json(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        generation = {**data["generation"], "correct": data.get("correct")}
        return super()._from_json({**data, "generation": generation})


def _check_log_probs(log_probs: Sequence[float] | None) -> None:
    for index, value in enumerate(log_probs or ()):
        if not value <= 0:  # nan included
            raise ValueError(f"token_log_probs[{index}] is {value}; a probability is at most 1")


def _log_probs_to_json(log_probs: Sequence[float] | None) -> dict[str, Any]:
    return {} if log_probs is None else {"token_log_probs": log_to_json(log_probs)}


def _from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    log_probs = data.get("token_log_probs")
    return {**data, "token_log_probs": None if log_probs is None else log_from_json(log_probs)}
