"""From logits to what calibration keeps of them, without keeping anything of size [positions, vocabulary]."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_calibration.scoring.token_scores import MIN_LARGE_PROB

_BLOCK_ELEMENTS = 1 << 22
"""Logits worked on at a time: 16 MiB in float32, so temporaries stay small at any vocabulary and batch."""

_LOG_THRESHOLD = math.log(MIN_LARGE_PROB) - 1e-2
"""A hair below, so that float32 rounding can't lose an entry; surplus entries do no harm (they fall in bin 0)."""


class Distributions(NamedTuple):
    """What is kept of n next-token distributions, m reference tokens looked up in them.

    Attributes:
        target_log_probs: [m] natural logs, float64, in the same arithmetic as ``large_probs``.
        target_stock_log_probs: [m] the same as a stock run computes them, for the harness's log-likelihood.
        target_is_greedy: [m] whether the reference token is the most probable one.
        large_probs: n arrays with every probability of at least ``MIN_LARGE_PROB``, float64.
        log_normalizers: [n] log-sum-exp of each row, float64; not finite where the logits are broken.
    """

    target_log_probs: NDArray[np.float64]
    target_stock_log_probs: NDArray[np.float64]
    target_is_greedy: NDArray[np.bool_]
    large_probs: list[NDArray[np.float64]]
    log_normalizers: NDArray[np.float64]


def summarize(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> Distributions:
    """Reduce logits [n, vocab_size] to :class:`Distributions`, exact to the logits' own precision.

    log p = z - logsumexp(z), with the sum in float64. A float32 log-softmax, which the stock run uses, is off by
    1e-5 at 49,000 entries on a CPU: metrics must not inherit that, and log-likelihoods must not differ from stock's
    by it, so both are returned. For half precision both are the exact one: stock's is rounded to 8 or 11 bits.

    Args:
        logits: [n, vocab_size], any float dtype, any device.
        rows: [m] which row each reference token belongs to.
        tokens: [m] the reference tokens' ids.
    """
    total = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
    step = max(1, _BLOCK_ELEMENTS // logits.shape[-1])
    tops, log_sums, stock_log_sums, greedy, large_rows, large_log_probs = [], [], [], [], [], []
    for start in range(0, logits.shape[0], step):
        z = logits[start : start + step].float()
        top, argmax = z.max(dim=-1)
        log_sum = (z - top[:, None]).exp_().sum(-1, dtype=total).log()
        is_large = z >= (top + (log_sum + _LOG_THRESHOLD).to(z.dtype))[:, None]
        row = is_large.nonzero()[:, 0]
        tops.append(top)
        log_sums.append(log_sum)
        if logits.dtype == torch.float32:
            stock_log_sums.append(-z.log_softmax(-1).gather(1, argmax[:, None])[:, 0].to(total))
        greedy.append(argmax)
        large_rows.append(row + start)
        large_log_probs.append(z[is_large].to(total) - top[row].to(total) - log_sum[row])
    top, log_sum = torch.cat(tops).to(total), torch.cat(log_sums)
    stock_log_sum = torch.cat(stock_log_sums) if stock_log_sums else log_sum
    below_top = logits[rows, tokens].to(total) - top[rows]
    # A rounding error above 0 would be a probability above 1.
    return Distributions(
        target_log_probs=np.minimum(_numpy(below_top - log_sum[rows]), 0.0),
        target_stock_log_probs=_numpy(below_top - stock_log_sum[rows]),
        target_is_greedy=(torch.cat(greedy)[rows] == tokens).cpu().numpy(),
        large_probs=_ragged(
            _numpy(torch.cat(large_rows)), np.exp(np.minimum(_numpy(torch.cat(large_log_probs)), 0.0)), len(logits)
        ),
        log_normalizers=_numpy(top + log_sum),
    )


def _numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.cpu().numpy().astype(np.float64)


def _ragged(rows: NDArray[np.float64], values: NDArray[np.float64], n: int) -> list[NDArray[np.float64]]:
    """Split values by their row; rows come in ascending order."""
    ends = np.searchsorted(rows, np.arange(1, n))
    return [part.copy() for part in np.split(values, ends)]
