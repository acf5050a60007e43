"""Next-token distributions softmax(z / T) at a grid of temperatures, from the same logits, in one pass.

The grid is equally spaced in 1/T, so that exp(x / T) at one temperature is the one before times exp(x / 12): a
multiplication where an exponential would be. What is kept of a position are its log-sum-exp at each T and the logits of
the few entries that reach the threshold at some T; every probability that Full-ECE needs follows from these.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lm_eval_calibration.backends.answer_types import STEPS, TEMPERATURES, Floats, TemperatureScores
from lm_eval_calibration.backends.hf.distributions import LOG_THRESHOLD, MAX_LARGE

_BLOCK_ELEMENTS = 1 << 17
"""Logits worked on at a time on a CPU: with their two work arrays they stay in the processor's cache."""


class OnDevice(NamedTuple):
    """The grid of n positions, m reference tokens looked up in them, on the logits' device.

    x is a logit less the largest of its position.
    """

    targets: torch.Tensor  # [m] x of the reference tokens
    log_sums: torch.Tensor  # [n, n_temperatures] log of the sum of exp(x / T)
    near: torch.Tensor  # [k] x of the entries that are kept, position after position
    counts: torch.Tensor  # [n] how many are kept of each position


def on_device(
    logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, *, fixed_shape: bool | None = None
) -> OnDevice:
    """Compute all positions of a batch at every temperature.

    Args:
        logits: [n, vocab_size], any float dtype, any device.
        rows: [m] which row each reference token belongs to.
        tokens: [m] the reference tokens' ids.
        fixed_shape: as for :func:`distributions.one_pass`.
    """
    if fixed_shape is None:
        fixed_shape = logits.device.type != "cpu"
    elements = _BLOCK_ELEMENTS if logits.device.type == "cpu" else 512 * _BLOCK_ELEMENTS
    tops, log_sums, near = [], [], []
    for block in torch.split(logits, max(1, elements // logits.shape[-1])):
        x = block.float()
        tops.append(x.amax(-1, keepdim=True))
        x = x - tops[-1]
        log_sums.append(_log_sums(x))
        near.append(_near(x, log_sums[-1], fixed_shape=fixed_shape))
    targets = logits[rows, tokens].float() - torch.cat(tops)[rows, 0]
    entries, counts = (torch.cat(parts) for parts in zip(*near, strict=True))
    return OnDevice(targets, torch.cat(log_sums), entries, counts)


class TemperatureGrid:
    """What :func:`on_device` returned, fetched."""

    def __init__(self, targets: Floats, log_sums: Floats, near: Floats, counts: Floats) -> None:
        self._targets, self._log_sums = targets, log_sums
        self._near = np.split(near, counts.astype(np.int64).cumsum()[:-1])

    def scores(self, positions: Sequence[int], targets: slice) -> TemperatureScores:
        """Return the scores of a continuation whose tokens are these of the reference tokens, at these positions."""
        near = tuple(self._near[i] for i in positions)
        return TemperatureScores(self._targets[targets].copy(), self._log_sums[list(positions)], near)


def _log_sums(x: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp of x / T, [n, n_temperatures]."""
    factor = (x / STEPS).exp_()
    powers = (x / TEMPERATURES[0]).exp_()
    sums = [powers.sum(-1)]
    for _ in TEMPERATURES[1:]:
        sums.append(powers.mul_(factor).sum(-1))
    return torch.stack(sums, dim=1).log()


def _near(x: torch.Tensor, log_sums: torch.Tensor, *, fixed_shape: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries of all rows that reach the threshold at some temperature, and few others; how many there are of each."""
    # Made on the device: to copy them there would halt it.
    steps = torch.arange(len(TEMPERATURES), dtype=log_sums.dtype, device=x.device)
    temperatures = STEPS / (STEPS / TEMPERATURES[0] + steps)
    lowest = (temperatures * (log_sums + LOG_THRESHOLD)).amin(-1, keepdim=True).to(x.dtype)
    if fixed_shape:
        values = x.topk(min(MAX_LARGE, x.shape[-1]), sorted=False).values
        return values.flatten(), torch.full((len(values),), values.shape[1], device=x.device)
    mask = x >= lowest
    return x[mask], mask.sum(-1)
