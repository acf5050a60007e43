"""Temperature scaling: one number that makes all distributions flatter or sharper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.validation import FloatArray, Probs, check_label_range, check_labels
from lm_eval_calibration.recalibration.choices import FlatChoices, flatten, softmax, unflatten
from lm_eval_calibration.recalibration.recalibrator import Recalibrator, Takes, warn

MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 100.0


@dataclass
class Temperature(Recalibrator):
    """p(T) = softmax(l / T), T > 0 the one that makes the gold choices most likely.

    The mean negative log-likelihood is convex in 1/T, and its derivative, mean_i (E_p(T)[l_i] - l_i,gold), rises
    with 1/T: T is where that is 0. The most probable choice stays the most probable: accuracy never changes.

    Where the docs do not say what T is, a RecalibrationWarning gives the reason, and T is
        1 where every doc's gold choice is its most probable one (the likelihood then rises for ever as T falls),
        where each doc's choices are all equally likely (T changes nothing), or where no gold choice has a chance;
        0.01 or 100 where the best T lies beyond these. Docs whose gold choice has log-likelihood -inf stay
        infinitely unlikely at any T and are left out of the fit.

    Attributes:
        temperature: above 1 the model was overconfident, below 1 underconfident.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """

    method: ClassVar[str] = "temperature"
    takes: ClassVar[Takes] = "choices"

    temperature: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no temperature."""
        if self.temperature is not None and not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature is {self.temperature!r}; it must be a positive number")

    def fit(self, inputs: Probs, targets: ArrayLike) -> Self:
        """Fit T.

        Args:
            inputs: [N, K] log-likelihoods of the choices in nats, or N vectors of different lengths.
            targets: [N] position of the gold choice.

        Raises:
            ValueError: bad input; the message names the doc and the value.
        """
        choices, labels = flatten(inputs), check_labels("labels", targets)
        if len(labels) != len(choices.first):
            raise ValueError(f"log_likelihoods has {len(choices.first)} rows, but labels has {len(labels)}")
        check_label_range("labels", labels, choices.n_choices, "choices")
        self.temperature = _fit(choices, choices.values[choices.first + labels])
        return self

    def predict_proba(self, inputs: Probs) -> FloatArray | list[FloatArray]:
        """Return softmax(l / T).

        Args:
            inputs: [N, K] log-likelihoods of the choices in nats, or N vectors of different lengths.

        Returns:
            [N, K] probabilities, or a list of N vectors; rows sum to 1.
        """
        (temperature,) = self._parameters()
        choices = flatten(inputs)
        return unflatten(softmax(choices, temperature), choices)

    @classmethod
    def identity(cls) -> Self:
        """Return T = 1."""
        return cls(1.0)


def _fit(choices: FlatChoices, gold: FloatArray) -> float:
    """``gold``: [N] the gold choices' values, at most 0."""
    from scipy.optimize import brentq

    possible = np.isfinite(gold)
    if not possible.all():
        warn("docs whose gold choice has log-likelihood -inf say nothing about the temperature: left out")
    if not possible.any():
        return _one("no gold choice has a finite log-likelihood")
    if (gold[possible] == 0).all():
        if (choices.values[np.repeat(possible, choices.n_choices)] == 0).all():
            return _one("the choices of each doc are equally likely, which no temperature changes")
        return _one(
            "every doc's gold choice is its most probable one, so the likelihood rises for ever as T falls to 0"
        )
    slope = _slope(choices, gold, possible)
    if slope(1 / MAX_TEMPERATURE) >= 0:
        warn(f"the best temperature is above {MAX_TEMPERATURE:g}: the flatter, the likelier the gold choices")
        return MAX_TEMPERATURE
    if slope(1 / MIN_TEMPERATURE) <= 0:
        warn(f"the best temperature is below {MIN_TEMPERATURE:g}: the sharper, the likelier the gold choices")
        return MIN_TEMPERATURE
    log_beta = brentq(lambda x: slope(np.exp(x)), -np.log(MAX_TEMPERATURE), -np.log(MIN_TEMPERATURE), xtol=1e-12)
    return float(np.exp(-log_beta))


def _slope(choices: FlatChoices, gold: FloatArray, possible: NDArray[np.bool_]) -> Callable[[float], float]:
    """Derivative of the mean negative log-likelihood in beta = 1/T: mean_i (E[l_i] - l_i,gold)."""
    kept = np.repeat(possible, choices.n_choices) & np.isfinite(choices.values)  # -inf weighs nothing at any T
    n_choices = np.add.reduceat(kept.astype(np.int64), choices.first)[possible]
    values, first = choices.values[kept], np.cumsum(n_choices) - n_choices

    def slope(beta: float) -> float:
        weights = np.exp(beta * values)
        means = np.add.reduceat(weights * values, first) / np.add.reduceat(weights, first)
        return float(np.mean(means - gold[possible]))

    return slope


def _one(reason: str) -> float:
    warn(f"temperature left at 1: {reason}")
    return 1.0
