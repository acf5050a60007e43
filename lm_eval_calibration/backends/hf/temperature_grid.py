"""Next-token distributions softmax(z / T) at a grid of temperatures, from the same logits, in one pass.

The grid is equally spaced in 1/T, so that exp(x / T) at one temperature is the one before times exp(x / 12): a
multiplication where an exponential would be. What is kept of a position are its log-sum-exp at each T and the logits of
the few entries that reach the threshold at some T; every probability that Full-ECE needs follows from these.
"""

from collections.abc import Sequence

import numpy as np
import torch

from lm_eval_calibration.backends.answer_types import STEPS, TEMPERATURES, Floats, TemperatureScores
from lm_eval_calibration.backends.hf.distributions import LOG_THRESHOLD, MAX_LARGE

_BLOCK_ELEMENTS = 1 << 17
"""Logits worked on at a time on a CPU: with their two work arrays they stay in the processor's cache."""


class TemperatureGrid:
    """All positions of a batch at every temperature.

    Args:
        logits: [n, vocab_size], any float dtype, any device.
        fixed_shape: as for :func:`distributions.one_pass`.
    """

    def __init__(self, logits: torch.Tensor, *, fixed_shape: bool | None = None) -> None:
        if fixed_shape is None:
            fixed_shape = logits.device.type != "cpu"
        self._logits = logits
        elements = _BLOCK_ELEMENTS if logits.device.type == "cpu" else 512 * _BLOCK_ELEMENTS
        tops, log_sums, near = [], [], []
        for block in torch.split(logits, max(1, elements // logits.shape[-1])):
            x = block.float()
            tops.append(x.amax(-1, keepdim=True))
            x = x - tops[-1]
            log_sums.append(_log_sums(x))
            near += _near(x, log_sums[-1], fixed_shape=fixed_shape)
        self._tops = torch.cat(tops)[:, 0]
        self.log_sums = torch.cat(log_sums).cpu().numpy().astype(np.float64)
        self.near = [x.cpu().numpy().astype(np.float64) for x in near]

    def targets(self, rows: torch.Tensor, tokens: torch.Tensor) -> Floats:
        """Return x of reference tokens, [m]: the logit less the largest of its row."""
        x = self._logits[rows, tokens].float() - self._tops[rows]
        return np.asarray(x.cpu().numpy(), dtype=np.float64)

    def scores(self, indices: Sequence[int], targets: Floats) -> TemperatureScores:
        """Return the scores of a continuation whose tokens are scored at these positions."""
        return TemperatureScores(targets.copy(), self.log_sums[list(indices)], tuple(self.near[i] for i in indices))


def _log_sums(x: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp of x / T, [n, n_temperatures]."""
    factor = (x / STEPS).exp_()
    powers = (x / TEMPERATURES[0]).exp_()
    sums = [powers.sum(-1)]
    for _ in TEMPERATURES[1:]:
        sums.append(powers.mul_(factor).sum(-1))
    return torch.stack(sums, dim=1).log()


def _near(x: torch.Tensor, log_sums: torch.Tensor, *, fixed_shape: bool) -> list[torch.Tensor]:
    """Entries of each row that reach the threshold at some temperature, and few others."""
    temperatures = torch.tensor(TEMPERATURES, dtype=log_sums.dtype, device=x.device)
    lowest = (temperatures * (log_sums + LOG_THRESHOLD)).amin(-1, keepdim=True).to(x.dtype)
    if fixed_shape:
        values = x.topk(min(MAX_LARGE, x.shape[-1]), sorted=False).values
        return list(values.unbind(0))
    mask = x >= lowest
    return list(torch.split(x[mask], mask.sum(-1).tolist()))
