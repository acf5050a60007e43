"""One text of a corpus as a model predicted it: sums over its tokens, for as many bins as the run had."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from lm_eval_calibration.records.record import Record, json_field


@dataclass(frozen=True)
class Corpus:
    """The text of a record of kind ``corpus``.

    Attributes:
        log_likelihood: of the text, in nats.
        n_words: of the text, as the task counts them; None where it does not.
        n_bytes: the same of bytes.
        n_tokens: tokens that were predicted; None, with all that follows, where the backend gives log-likelihoods only.
        gap_sums: [n_bins] hits - probability mass of each Full-ECE bin.
        top_count: [n_bins] positions whose most probable token has its probability in the bin.
        top_confidence: [n_bins] sum of these probabilities.
        top_correct: [n_bins] at how many of these positions that token is the text's own.
    """

    log_likelihood: float
    n_words: int | None = None
    n_bytes: int | None = None
    n_tokens: int | None = None
    gap_sums: tuple[float, ...] | None = None
    top_count: tuple[int, ...] | None = None
    top_confidence: tuple[float, ...] | None = None
    top_correct: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse sums that no text has."""
        if not self.log_likelihood < math.inf:  # nan included
            raise ValueError(f"log_likelihood is {self.log_likelihood}")
        lengths = {None if sums is None else len(sums) for sums in self._sums.values()}
        if len(lengths) != 1 or (self.n_tokens is None) != (self.gap_sums is None):
            raise ValueError("gap_sums, top_count, top_confidence and top_correct differ in their numbers of bins")
        if self.n_tokens is None or self.top_count is None or self.top_confidence is None or self.top_correct is None:
            return
        if sum(self.top_count) != self.n_tokens:
            raise ValueError(f"top_count adds up to {sum(self.top_count)}, but there are {self.n_tokens} tokens")
        for n, confidence, correct in zip(self.top_count, self.top_confidence, self.top_correct, strict=True):
            if not 0 <= correct <= n or not -1e-9 <= confidence <= n + 1e-9:
                raise ValueError(f"a bin of {n} tokens has confidence {confidence} and {correct} correct")

    @property
    def n_bins(self) -> int | None:
        """Bins of the sums; None where there are none."""
        return None if self.gap_sums is None else len(self.gap_sums)

    @property
    def top_gaps(self) -> tuple[float, ...] | None:
        """[n_bins] correct - confidence of the most probable tokens."""
        if self.top_confidence is None or self.top_correct is None:
            return None
        return tuple([h - c for h, c in zip(self.top_correct, self.top_confidence, strict=True)])

    @property
    def _sums(self) -> dict[str, tuple[float, ...] | None]:
        return {name: getattr(self, name) for name in _SUMS}

    def to_dict(self) -> dict[str, Any]:
        """Return the text's sums as JSON-ready data; an infinite log-likelihood becomes null."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data |= {name: None if sums is None else list(sums) for name, sums in self._sums.items()}
        data = {key: value for key, value in data.items() if value is not None}
        return data | {"log_likelihood": self.log_likelihood if math.isfinite(self.log_likelihood) else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a text's sums."""
        read: dict[str, Any] = {"log_likelihood": -math.inf}
        read |= {name: tuple(value) if name in _SUMS else value for name, value in data.items() if value is not None}
        return cls(**read)


_SUMS = ("gap_sums", "top_count", "top_confidence", "top_correct")


@dataclass(frozen=True, kw_only=True)
class CorpusRecord(Record):
    """A text of a corpus, which is no answer: it has no confidence.

    Attributes:
        corpus: sums over the tokens of the text.
    """

    kind: ClassVar[str] = "corpus"

    corpus: Corpus = json_field(Corpus.from_dict, Corpus.to_dict)
