"""One doc at every temperature of a grid: what its record holds of softmax(z / T) at the tokens of its choices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from lm_eval_calibration.records.numbers import log_from_json, log_to_json


@dataclass(frozen=True)
class TokenTemperatures:
    """A multiple-choice doc, its tokens scored at several temperatures.

    Attributes:
        grid: the temperatures.
        log_likelihoods: of each choice at each temperature, summed over its tokens, in nats.
        n_bins: bins of the gap sums.
        gap_sums: at each temperature, hits minus probability mass of each Full-ECE bin at the gold choice's tokens.
    """

    grid: tuple[float, ...]
    log_likelihoods: tuple[tuple[float, ...], ...]
    n_bins: int
    gap_sums: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuse parts of different grids or numbers of bins."""
        n = len(self.grid)
        if not n or min(self.grid) <= 0:
            raise ValueError(f"the grid of temperatures is {list(self.grid)}")
        if any(len(choice) != n for choice in self.log_likelihoods) or len(self.gap_sums) != n:
            raise ValueError(f"temperatures: the log_likelihoods or gap_sums are not of {n} temperatures")
        if any(len(sums) != self.n_bins for sums in self.gap_sums):
            raise ValueError(f"temperatures: the gap_sums are not of {self.n_bins} bins")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self) | {"log_likelihoods": list(map(log_to_json, self.log_likelihoods))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(
            tuple(data["grid"]),
            tuple(map(log_from_json, data["log_likelihoods"])),
            data["n_bins"],
            tuple(map(tuple, data["gap_sums"])),
        )
