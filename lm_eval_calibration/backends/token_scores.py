"""What a backend returns for one continuation."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.backends.temperature_scores import TemperatureScores

MIN_LARGE_PROB = 0.01
"""Every vocabulary entry at least this probable is kept, so Full-ECE is exact for up to 100 bins."""

MAX_BINS = 100
"""A distribution has at most n_bins entries with p >= 1/n_bins, and only those need a bin of their own."""


class TokenScores(tuple[float, bool]):
    """``(log-likelihood, is_greedy)`` of one continuation, plus what calibration needs of its tokens.

    A pair, because the harness unpacks responses as pairs; the rest are attributes. Picklable.

    Attributes:
        log_probs: [n_tokens] natural-log probability of each reference token, or None where the backend
            gives log-likelihoods only.
        large_probs: for each token position every probability of the vocabulary that is at least
            ``MIN_LARGE_PROB`` (in no order, the reference token's included if it is that large); None as above.
        vocab_size: entries of each distribution, padding rows included.
        temperatures: the tokens at every temperature of a grid, where the run asks for it.
        complete_from: no probability larger than this is missing in ``large_probs``; more than ``MIN_LARGE_PROB``
            where a server tells the most probable entries only.
        certificate: how the numbers were obtained (backend, exact or not, dtype, versions).
        request: the harness's instance that this answers; set by the task, never by a backend or a cache.
    """

    log_probs: NDArray[np.float64] | None
    large_probs: tuple[NDArray[np.float64], ...] | None
    vocab_size: int | None
    temperatures: TemperatureScores | None = None  # answers of older caches have none
    complete_from: float = MIN_LARGE_PROB  # also of answers that an older cache holds
    certificate: Mapping[str, Any]
    request: Any

    def __new__(
        cls,
        pair: tuple[float, bool],
        *,
        log_probs: NDArray[np.float64] | None = None,
        large_probs: tuple[NDArray[np.float64], ...] | None = None,
        vocab_size: int | None = None,
        temperatures: TemperatureScores | None = None,
        complete_from: float = MIN_LARGE_PROB,
        certificate: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make the pair and hang the attributes on it."""
        self = super().__new__(cls, pair)
        self.log_probs = log_probs
        self.large_probs = large_probs
        self.vocab_size = vocab_size
        self.temperatures = temperatures
        self.complete_from = complete_from
        self.certificate = certificate or {}
        self.request = None
        return self

    @property
    def has_distributions(self) -> bool:
        """Whether the backend gave token distributions, so that Full-ECE can be computed."""
        return self.large_probs is not None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the request behind: it holds this very answer, and other processes have no use for it."""
        return {**self.__dict__, "request": None}

    def answering(self, request: Any) -> "TokenScores":
        """Return a copy that knows the request it answers (the original may sit in a cache)."""
        copy = TokenScores(
            (self[0], self[1]),
            log_probs=self.log_probs,
            large_probs=self.large_probs,
            vocab_size=self.vocab_size,
            temperatures=self.temperatures,
            complete_from=self.complete_from,
            certificate=self.certificate,
        )
        copy.request = request
        return copy
