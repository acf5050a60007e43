"""What a backend returns for one request: scores of a continuation, a generated text, sums over a corpus's text.

Each is what the harness expects of a stock request (a pair, a text, a number) with attributes, and can be pickled.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_LARGE_PROB = 0.01
"""Every vocabulary entry at least this probable is kept, so Full-ECE is exact for up to 100 bins."""

MAX_BINS = 100
"""A distribution has at most n_bins entries with p >= 1/n_bins, and only those need a bin of their own."""

TOP_K = 20
"""Tokens that the confidence along a chain of thought is the mean of (the default of Fu et al. 2025's code)."""

STEPS = 12
"""1/T is a multiple of 1/12."""

TEMPERATURES = tuple(STEPS / k for k in range(4, 25))
"""The grid: 3, 2.4, 2 ... 1 ... 0.5; 21 temperatures equally spaced in 1/T."""


@dataclass(frozen=True)
class TemperatureScores:
    """Tokens at every temperature of the grid: softmax(z / T). x is a logit less the largest of its position."""

    targets: Floats  # [n_tokens] x of each reference token
    log_sums: Floats  # [n_tokens, n_temperatures] log of the sum of exp(x / T) over the vocabulary
    near: tuple[Floats, ...]  # for each position, x of every entry whose probability is at least 0.01 at some T

    @property
    def log_probs(self) -> Floats:
        """[n_tokens, n_temperatures] of the reference tokens, natural logs."""
        log_probs: Floats = self.targets[:, None] / np.array(TEMPERATURES) - self.log_sums
        return np.minimum(log_probs, 0.0)

    def large_probs(self, index: int) -> list[Floats]:
        """Every probability of at least 0.01 at a temperature, and perhaps some smaller ones, position by position."""
        log_sums = self.log_sums[:, index]
        return [
            np.exp(np.minimum(x / TEMPERATURES[index] - log_sum, 0.0))
            for x, log_sum in zip(self.near, log_sums, strict=True)
        ]


class _Answer:
    """A stock answer with attributes, which are given by keyword; those that are not have the class's default.

    Attributes:
        certificate: how the answer was obtained (backend, exact or not, dtype, versions).
        request: the harness's instance that this answers; set by the task, never by a backend or a cache.
    """

    certificate: Mapping[str, Any] = MappingProxyType({})
    request: Any = None

    def __new__(cls, stock_answer: Any, **attributes: Any) -> Self:
        """Return the stock answer with the attributes; raise TypeError for one that the class doesn't have."""
        if unknown := [name for name in attributes if not hasattr(cls, name)]:
            raise TypeError(f"{cls.__name__} has no attribute {unknown[0]}")
        self = super().__new__(cls, stock_answer)  # type: ignore[call-arg]
        vars(self).update(attributes)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the request behind: it holds this very answer, and other processes have no use for it."""
        return {**vars(self), "request": None}

    def answering(self, request: Any) -> Self:
        """Return a copy that knows the request it answers (the original may be in a cache)."""
        return self._copied(request=request)

    def with_certificate(self, certificate: Mapping[str, Any]) -> Self:
        """Return a copy that was obtained in this way."""
        return self._copied(certificate=certificate)

    def _copied(self, **attributes: Any) -> Self:
        copied = copy(self)
        vars(copied).update(attributes)
        return copied


class TokenScores(_Answer, tuple[float, bool]):
    """``(log-likelihood, is_greedy)`` of one continuation, plus what calibration needs of its tokens.

    Attributes:
        log_probs: [n_tokens] natural-log probability of each reference token, or None where the backend
            gives log-likelihoods only.
        large_probs: for each token position every probability of the vocabulary that is at least
            ``MIN_LARGE_PROB`` (in no order, the reference token's included if it is that large); None as above.
        vocab_size: entries of each distribution, padding rows included.
        temperatures: the tokens at every temperature of a grid, where the request wants it.
        complete_from: no probability larger than this is missing in ``large_probs``; more than ``MIN_LARGE_PROB``
            where a server gives the most probable entries only.
    """

    log_probs: Floats | None = None
    large_probs: tuple[Floats, ...] | None = None
    vocab_size: int | None = None
    temperatures: TemperatureScores | None = None
    complete_from: float = MIN_LARGE_PROB

    @property
    def has_distributions(self) -> bool:
        """Whether the backend gave token distributions, so that Full-ECE can be computed."""
        return self.large_probs is not None


class TokenSums(NamedTuple):
    """Sums over the tokens of a text; those of several texts add up."""

    gap_sums: Floats  # [n_bins] hits - probability mass of each Full-ECE bin, over every (position, vocabulary entry)
    top_count: NDArray[np.int64]  # [n_bins] positions whose most probable token has its probability in the bin
    top_confidence: Floats  # [n_bins] sum of those probabilities
    top_correct: NDArray[np.int64]  # [n_bins] at how many of these positions that token is the text's own

    @classmethod
    def zeros(cls, n_bins: int) -> Self:
        """Return the sums over no tokens."""
        counts = (np.zeros(n_bins, dtype=np.int64) for _ in range(2))
        return cls(np.zeros(n_bins), next(counts), np.zeros(n_bins), next(counts))

    def add(self, other: "TokenSums") -> None:
        """Add the sums over other tokens, in place."""
        for mine, more in zip(self, other, strict=True):
            np.add(mine, more, out=mine)


class CorpusScores(_Answer, float):
    """The log-likelihood of one text in nats, as stock ``loglikelihood_rolling`` gives it, and its tokens' sums.

    Attributes:
        n_tokens: tokens that were predicted; None where the backend does not say.
        sums: None where the backend gives log-likelihoods only.
        vocab_size: entries of each distribution, padding rows included.
    """

    n_tokens: int | None = None
    sums: TokenSums | None = None
    vocab_size: int | None = None

    @property
    def has_distributions(self) -> bool:
        """Whether the backend gave token distributions."""
        return self.sums is not None


Listed = tuple[tuple[str, float], ...]
"""The most probable tokens at one position: text and natural-log probability of each."""


class TopTokens(NamedTuple):
    """The most probable tokens at one position of a generated text."""

    position: int  # which of the text's tokens stands there
    tokens: Listed  # none where the backend gives none


class GeneratedText(_Answer, str):
    """The text of one generation, as a stock run returns it, plus the probabilities of its tokens.

    Attributes:
        token_log_probs: [n_tokens] natural-log probabilities of the emitted tokens that the text consists of, by the
            model itself (temperature 1, before any processor or warper), or None where the backend gives none. A token
            counts if some of its characters are in the text; the end token and the tokens of a stop string have none.
            A server's are what it gives: ``token_probabilities`` in the certificate says so.
        token_ends: [n_tokens] how many characters of the text these tokens spell up to and including each; None where
            that is not known. A character that several tokens spell ends with the last of them.
        thought_log_probs: [n] the same as ``token_log_probs`` of the tokens before the text, which the harness took
            away as the model's thought (the token that ends it included); None where nothing was taken away.
        thought: the text of these tokens; "" where nothing was taken away or nobody knows it.
        thought_ends: as ``token_ends``, of the thought's tokens.
        mean_top_k: [n_thought + n_tokens] minus the mean log-probability of the ``top_k`` most probable tokens at each
            position of thought and text, in nats; None where the request does not want it or the backend can't tell.
        top_k: tokens that this is the mean of: ``TOP_K``, or as many as a server gives.
        top_tokens: the most probable tokens at the position that the request wants them of; None where it wants none.
        listed: [n_tokens] the most probable tokens at each position, until the text is delivered; then empty.
        finish_reason: "length" where the limit of tokens ended the text, "stop" where the model or a stop string did;
            None where nobody knows.
        thought_is_open: whether a thought began that was never closed, so that the text is no answer.
        has_content: whether a text was returned at all, be it an empty one; False where a server gives none and the
            harness puts another in its place.
        follow_up_answers: to the requests that followed the text up, each None where the backend can't answer such.
        follow_up_sources: who made these requests, as the requests' attribute ``source`` names them.
    """

    token_log_probs: Floats | None = None
    token_ends: NDArray[np.int64] | None = None
    thought_log_probs: Floats | None = None
    thought: str = ""
    thought_ends: NDArray[np.int64] | None = None
    mean_top_k: Floats | None = None
    top_k: int = TOP_K
    top_tokens: TopTokens | None = None
    listed: tuple[Listed, ...] = ()
    finish_reason: str | None = None
    thought_is_open: bool = False
    has_content: bool = True
    follow_up_answers: tuple[Any, ...] = ()
    follow_up_sources: tuple[str, ...] = ()

    def with_follow_up_answers(self, answers: Iterable[Any], sources: Iterable[str] = ()) -> Self:
        """Return a copy that has these answers (the original may be in a cache)."""
        return self._copied(follow_up_answers=tuple(answers), follow_up_sources=tuple(sources))

    def keeping_top_tokens(self, position: int | None) -> Self:
        """Return a copy with the most probable tokens at one position (None: at none).

        This text drops those of all positions: the harness holds it until its last request is answered.
        """
        listed = vars(self).pop("listed", ())
        tokens = listed[position] if position is not None and listed else ()
        return self._copied(top_tokens=None if position is None else TopTokens(position, tokens))

    @property
    def has_probabilities(self) -> bool:
        """Whether the backend gives token probabilities (of this text or, where that failed, of others)."""
        return bool(self.certificate.get("token_probabilities", "none") != "none")
