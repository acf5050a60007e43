"""What a backend returns for one text of a corpus."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class TokenSums(NamedTuple):
    """Sums over the tokens of a text; those of several texts add up.

    Attributes:
        gap_sums: [n_bins] hits - probability mass of each Full-ECE bin, over every (position, vocabulary entry).
        top_count: [n_bins] positions whose most probable token has its probability in the bin.
        top_confidence: [n_bins] sum of those probabilities.
        top_correct: [n_bins] at how many of these positions that token is the text's own.
    """

    gap_sums: NDArray[np.float64]
    top_count: NDArray[np.int64]
    top_confidence: NDArray[np.float64]
    top_correct: NDArray[np.int64]

    @classmethod
    def zeros(cls, n_bins: int) -> Self:
        """Return the sums over no tokens."""
        counts = (np.zeros(n_bins, dtype=np.int64) for _ in range(2))
        return cls(np.zeros(n_bins), next(counts), np.zeros(n_bins), next(counts))

    def add(self, other: "TokenSums") -> None:
        """Add the sums over other tokens, in place."""
        for mine, more in zip(self, other, strict=True):
            np.add(mine, more, out=mine)


class CorpusScores(float):
    """The log-likelihood of one text in nats, as stock ``loglikelihood_rolling`` gives it, and its tokens' sums.

    A float, because the harness computes perplexities of it; the rest are attributes. Picklable.

    Attributes:
        n_tokens: tokens that were predicted; None where the backend does not say.
        sums: None where the backend gives log-likelihoods only.
        vocab_size: entries of each distribution, padding rows included.
        certificate: how the numbers were obtained.
        request: the harness's instance that this answers; set by the task, never by a backend or a cache.
    """

    n_tokens: int | None
    sums: TokenSums | None
    vocab_size: int | None
    certificate: Mapping[str, Any]
    request: Any

    def __new__(
        cls,
        log_likelihood: float,
        *,
        n_tokens: int | None = None,
        sums: TokenSums | None = None,
        vocab_size: int | None = None,
        certificate: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make the number and hang the attributes on it."""
        self = super().__new__(cls, log_likelihood)
        self.n_tokens = n_tokens
        self.sums = sums
        self.vocab_size = vocab_size
        self.certificate = certificate or {}
        self.request = None
        return self

    @property
    def has_distributions(self) -> bool:
        """Whether the backend gave token distributions."""
        return self.sums is not None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the request behind: it holds this very answer, and other processes have no use for it."""
        return {**self.__dict__, "request": None}

    def answering(self, request: Any) -> "CorpusScores":
        """Return a copy that knows the request it answers (the original may sit in a cache)."""
        copy = CorpusScores(
            float(self),
            n_tokens=self.n_tokens,
            sums=self.sums,
            vocab_size=self.vocab_size,
            certificate=self.certificate,
        )
        copy.request = request
        return copy
