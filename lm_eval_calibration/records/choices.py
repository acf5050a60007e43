"""The record of a multiple-choice doc."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lm_eval_calibration.records.numbers import log_from_json, log_to_json
from lm_eval_calibration.records.record import AnswerRecord, json_field
from lm_eval_calibration.records.temperature_grid import TokenTemperatures


@dataclass(frozen=True, kw_only=True)
class ChoicesRecord(AnswerRecord):
    """A multiple-choice doc.

    Attributes:
        log_likelihoods: of the choices, in nats, summed over each choice's tokens.
        gold: index of the right choice, or None where the doc's label is broken.
        choice_lengths: of the choices, in characters, as ``acc_norm`` counts them.
        rotations: how far the choices were rotated in each order in which they were presented; 0 first.
        rotated_log_likelihoods: of the choices under each of these orders, in the doc's own order of choices.
        temperatures: the doc's tokens at a grid of temperatures, where the run scored them so.
        abstention: index of the choice by which the model says that it does not know; None where there is none.
    """

    kind: ClassVar[str] = "multiple_choice"

    log_likelihoods: tuple[float, ...] = json_field(log_from_json, log_to_json)
    gold: int | None
    choice_lengths: tuple[int, ...] | None = json_field(tuple, list, default=None)
    rotations: tuple[int, ...] | None = json_field(tuple, list, default=None)
    rotated_log_likelihoods: tuple[tuple[float, ...], ...] | None = json_field(
        lambda orders: tuple(map(log_from_json, orders)), lambda orders: list(map(log_to_json, orders)), default=None
    )
    temperatures: TokenTemperatures | None = json_field(
        TokenTemperatures.from_dict, TokenTemperatures.to_dict, default=None
    )
    abstention: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no metric could be computed from."""
        super().__post_init__()
        k = len(self.log_likelihoods)
        if k == 0 or not sum(self.log_likelihoods) < math.inf:  # any nan or infinity makes the sum one
            raise ValueError(f"log_likelihoods are {list(self.log_likelihoods)}")
        if self.gold is not None and not 0 <= self.gold < k:
            raise ValueError(f"gold is {self.gold}, but there are {k} choices")
        if self.abstention is not None and not 0 <= self.abstention < k:
            raise ValueError(f"abstention is {self.abstention}, but there are {k} choices")
        if self.choice_lengths is not None and (len(self.choice_lengths) != k or min(self.choice_lengths) < 0):
            raise ValueError(f"choice_lengths are {list(self.choice_lengths)}, but there are {k} choices")
        if len(self.rotations or ()) != len(self.rotated_log_likelihoods or ()) or any(
            len(order) != k for order in self.rotated_log_likelihoods or ()
        ):
            raise ValueError("rotations and rotated_log_likelihoods differ in their numbers of orders or choices")

    @cached_property
    def probs(self) -> NDArray[np.float64]:
        """[n_choices] softmax of the log-likelihoods; nan where none is finite."""
        if not self.has_likelihood:
            return np.full(len(self.log_likelihoods), math.nan)
        return np.asarray(softmax(np.asarray(self.log_likelihoods, dtype=np.float64)))

    @property
    def has_likelihood(self) -> bool:
        """Whether some choice has a finite log-likelihood; without one, none is the answer."""
        return max(self.log_likelihoods) > -math.inf

    @property
    def confidence(self) -> float | None:
        """Probability of the most probable choice; None where no choice has a finite log-likelihood."""
        return float(self.probs.max()) if self.has_likelihood else None

    @property
    def answer(self) -> int:
        """Index of the most probable choice, the first of equals, as the harness counts."""
        return self.log_likelihoods.index(max(self.log_likelihoods))

    @property
    def correct(self) -> int | None:
        """1 if the most probable choice is the right one, else 0; None where the label is broken or there is none."""
        return None if self.gold is None or not self.has_likelihood else int(self.answer == self.gold)

    @property
    def rotated_probs(self) -> NDArray[np.float64]:
        """[n_orders, n_choices] choice probabilities under each order, in the doc's own order of choices."""
        if not self.rotated_log_likelihoods:
            raise ValueError(f"{self.label}: its choices were presented in one order only")
        rotated = np.array(self.rotated_log_likelihoods, dtype=np.float64)
        rotated[~np.isfinite(rotated).any(axis=1)] = math.nan  # no choice of that order has a probability
        return np.asarray(softmax(rotated, axis=1))

    def length_normalized(self) -> Self:
        """Return the record as ``acc_norm`` sees it: each choice's log-likelihood divided by its characters."""
        if self.choice_lengths is None:
            raise ValueError(f"{self.label}: the lengths of its choices were not recorded")
        with np.errstate(divide="ignore"):  # the harness, too, gives an empty choice no chance
            normalized = np.asarray(self.log_likelihoods) / np.asarray(self.choice_lengths)
        return replace(self, log_likelihoods=tuple(normalized.tolist()))

    def permuted(self) -> Self:
        """Return the record with the choice probabilities averaged over the orders of the choices."""
        with np.errstate(divide="ignore"):
            averaged = np.log(self.rotated_probs.mean(axis=0))
        averaged[np.isnan(averaged)] = -math.inf
        return replace(self, log_likelihoods=tuple(averaged.tolist()))
