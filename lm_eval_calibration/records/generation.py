"""The record of a doc whose answer was generated: the probabilities of its tokens, and the confidences made of them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import entr

from lm_eval_calibration.records.answer_options import AnswerOptions
from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.final_answer import (
    ANSWERED,
    EMPTY,
    BudgetedAnswer,
    ChainConfidence,
    FinalAnswer,
)
from lm_eval_calibration.records.record import AnswerRecord, ScoredAnswer, json_field
from lm_eval_calibration.records.samples import Sample, check_log_probs, log_probs_from_json, log_probs_to_json

_DERIVED = ("confidences", "undefined", "answer_entropy")
"""Keys of the JSON form that the others say already."""

CONFIDENCES = ("pavg", "pgeo", "ptot", "pmin")
"""Names of the confidences of a generation; the first is what ``Record.confidence`` is."""


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
        answer: what became of the answer, and where in the text it stands; None in runs that were logged before it was
            recorded, whose answers all count.
        thought_log_probs: as ``token_log_probs``, of the tokens of the thought where the harness took that away from
            the text; None where it took nothing, or nobody knows.
        chain: how sure the model was along its thought; None where that was not wanted or is not known.
    """

    text_hash: str
    metric: str
    filter: str
    correct: int | None
    token_log_probs: tuple[float, ...] | None = None
    samples: tuple[Sample, ...] = ()
    answer: FinalAnswer | None = None
    thought_log_probs: tuple[float, ...] | None = None
    chain: ChainConfidence | None = None

    def __post_init__(self) -> None:
        """Refuse what is no outcome or no probability."""
        if self.correct not in (0, 1, None):
            raise ValueError(f"correct is {self.correct!r}, not 0 or 1")
        check_log_probs(self.token_log_probs)
        check_log_probs(self.thought_log_probs, "thought_log_probs")

    @property
    def outcome(self) -> str:
        """What became of the answer: one of ``OUTCOMES``."""
        if self.answer is not None:
            return self.answer.outcome
        return EMPTY if self.token_log_probs == () else ANSWERED

    @property
    def undefined(self) -> str | None:
        """Why the answer has no confidence (None: it has one)."""
        if self.token_log_probs is None:
            return "the backend gives no token probabilities"
        if not self.token_log_probs:
            return "the answer is empty"
        return None if self.outcome == ANSWERED else f"the text holds no answer: {self.outcome}"

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
    def mean_probability(self) -> float | None:
        """``pavg``, also of a text that holds no answer; None where it has no tokens, or they have no probabilities."""
        return None if self.confidences is None else self.confidences[CONFIDENCES[0]]

    @property
    def confidence(self) -> float | None:
        """``pavg``; None where it is undefined."""
        return self.mean_probability if self.outcome == ANSWERED else None

    @property
    def answer_probability(self) -> float | None:
        """The product of the probabilities of the final answer's tokens; None where the answer's place is not known."""
        if self.token_log_probs is None or self.answer is None or self.answer.tokens is None:
            return None
        start, end = self.answer.tokens
        return float(np.exp(np.sum(self.token_log_probs[start:end])))

    @property
    def tail_probability(self) -> float | None:
        """The mean probability of the last ``answer.tail`` tokens before the final answer, or of all if they are fewer.

        Those of a thought that was taken away are among them. None where there is none, the answer's place is not
        known, or the tail was not wanted.
        """
        if self.token_log_probs is None or self.answer is None or not (self.answer.tokens and self.answer.tail):
            return None
        before = (*(self.thought_log_probs or ()), *self.token_log_probs[: self.answer.tokens[0]])
        return float(np.exp(before[-self.answer.tail :]).mean()) if before else None

    @property
    def is_part_of_the_text(self) -> bool:
        """Whether the answer is known to be only a part of what was written."""
        if not self.token_log_probs or self.answer is None or self.answer.tokens is None:
            return False
        return bool(self.thought_log_probs) or self.answer.tokens != (0, len(self.token_log_probs))

    @property
    def votes(self) -> Counter[str]:
        """How many of the samples that hold an answer give each, in the order in which they came."""
        return Counter(sample.answer_hash for sample in self.samples if sample.has_answer)

    @property
    def majority(self) -> tuple[float | None, int | None] | None:
        """Share of the samples with an answer that give the most frequent one, and whether that is right.

        Of equally frequent answers it is the first. The share is None where no sample holds an answer; then the first
        sample counts, as right or wrong as the task's metric calls it. None where there were no several samples.
        """
        if not self.samples:
            return None
        if not self.votes:
            return None, self.samples[0].correct
        answer, count = self.votes.most_common(1)[0]
        correct = next(s.correct for s in self.samples if s.has_answer and s.answer_hash == answer)
        return count / self.votes.total(), correct

    @property
    def answer_entropy(self) -> float | None:
        """Entropy of the distribution of the samples' answers, in nats; None where no sample holds an answer."""
        shares = np.array([*self.votes.values()]) / max(self.votes.total(), 1)
        return float(entr(shares).sum()) if len(shares) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the generation as JSON-ready data; an infinite log-probability becomes null."""
        data: dict[str, Any] = {"text_hash": self.text_hash, "metric": self.metric, "filter": self.filter}
        data |= {"confidences": self.confidences}
        if self.undefined:
            data["undefined"] = self.undefined
        data |= log_probs_to_json(self.token_log_probs)
        data |= log_probs_to_json(self.thought_log_probs, "thought_log_probs")
        for name in ("answer", "chain"):
            if (part := getattr(self, name)) is not None:
                data[name] = part.to_dict()
        if self.samples:
            data["answer_entropy"] = self.answer_entropy
            data["samples"] = [sample.to_dict() for sample in self.samples]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a generation and, from beside it in the record, ``correct``."""
        fields = {key: value for key, value in data.items() if key not in _DERIVED}
        samples = tuple(map(Sample.from_dict, fields.pop("samples", ())))
        for name, part in (("answer", FinalAnswer), ("chain", ChainConfidence)):
            if fields.get(name) is not None:
                fields[name] = part.from_dict(fields[name])
        return cls(**log_probs_from_json(fields), samples=samples)


@dataclass(frozen=True, kw_only=True)
class GenerationRecord(AnswerRecord):
    """A doc whose answer the model generated.

    Attributes:
        generation: what the model wrote, and whether it is right.
        options: the doc's options in the place of the answer, where that is one of them; None where it isn't, or that
            was not wanted.
        budgets: the answers that it gave when its thought was cut; None where it was not.
    """

    kind: ClassVar[str] = "generation"

    generation: Generation = json_field(Generation.from_dict, Generation.to_dict)
    options: AnswerOptions | None = json_field(AnswerOptions.from_dict, AnswerOptions.to_dict, default=None)
    budgets: tuple[BudgetedAnswer, ...] | None = json_field(
        BudgetedAnswer.read_all, BudgetedAnswer.write_all, default=None
    )

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
        return self.scored(*self.generation.majority)

    def with_confidence(self, confidence: float | None) -> ScoredAnswer:
        """Return the answer with another confidence; with none where the text holds no answer."""
        known = confidence if self.generation.outcome == ANSWERED else None
        return self.scored(known, self.correct)

    def over_options(self) -> ChoicesRecord:
        """Return the doc as if it were answered by choosing among its options in the place of the answer.

        Raises:
            ValueError: the answer is none of them, or they were not scored.
        """
        if self.options is None:
            raise ValueError(f"{self.label}: its options were not scored in the place of its answer")
        return ChoicesRecord(
            task=self.task,
            doc_id=self.doc_id,
            cluster=self.cluster,
            doc_hash=self.doc_hash,
            prompt_hash=self.prompt_hash,
            log_likelihoods=self.options.log_likelihoods,
            gold=self.options.gold,
        )

    def as_if_answered(self, correct: int) -> ScoredAnswer:
        """Return the text, which holds no answer, as if that were right (1) or wrong (0), at its mean probability."""
        return self.scored(self.generation.mean_probability, correct)

    def with_stated_confidence(self, source: str) -> ScoredAnswer:
        """Return the answer with the confidence that the model stated; ValueError where this source has none."""
        return self.with_confidence(super().with_stated_confidence(source).confidence)

    @classmethod
    def _read_fields(cls, values: dict[str, Any], data: Mapping[str, Any]) -> None:
        values["generation"] = {**data["generation"], "correct": data.get("correct")}
        super()._read_fields(values, data)
