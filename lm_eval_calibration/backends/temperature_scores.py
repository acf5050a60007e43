"""The tokens of one continuation at every temperature of a grid: softmax(z / T), from a few numbers a position."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 12
"""1/T is a multiple of 1/12."""

TEMPERATURES = tuple(STEPS / k for k in range(4, 25))
"""The grid: 3, 2.4, 2 ... 1 ... 0.5; 21 temperatures equally spaced in 1/T."""


@dataclass(frozen=True)
class TemperatureScores:
    """Tokens at every temperature of the grid. x is a logit less the largest of its position.

    Attributes:
        targets: [n_tokens] x of each reference token.
        log_sums: [n_tokens, n_temperatures] log of the sum of exp(x / T) over the vocabulary.
        near: of each position, x of every entry whose probability is at least 0.01 at some T.
    """

    targets: NDArray[np.float64]
    log_sums: NDArray[np.float64]
    near: tuple[NDArray[np.float64], ...]

    @property
    def log_probs(self) -> NDArray[np.float64]:
        """[n_tokens, n_temperatures] of the reference tokens, natural logs."""
        log_probs: NDArray[np.float64] = self.targets[:, None] / np.array(TEMPERATURES) - self.log_sums
        return np.minimum(log_probs, 0.0)

    def large_probs(self, index: int) -> list[NDArray[np.float64]]:
        """Every probability of at least 0.01 at a temperature, and perhaps some smaller ones, position by position."""
        log_sums = self.log_sums[:, index]
        return [
            np.exp(np.minimum(x / TEMPERATURES[index] - log_sum, 0.0))
            for x, log_sum in zip(self.near, log_sums, strict=True)
        ]
