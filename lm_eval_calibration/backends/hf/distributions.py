"""From logits to what calibration keeps of them, without keeping anything of size [positions, vocabulary]."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_calibration.backends.answer_types import MIN_LARGE_PROB, Floats
from lm_eval_calibration.backends.hf.transfer import to_host

_BLOCK_ELEMENTS = 1 << 19
"""Logits worked on at a time on a CPU: 2 MiB in float32, so that all passes over a block but the first find it in the
processor's cache. Accelerators take 64 times as many."""

_CHUNK = 64
"""Neighbouring vocabulary entries that are looked at through their sum."""

LOG_THRESHOLD = math.log(MIN_LARGE_PROB) - 1e-2
"""A hair below, so that float32 rounding can't lose an entry; surplus entries do no harm (they fall in bin 0)."""

MAX_LARGE = math.floor(math.exp(-LOG_THRESHOLD))
"""Entries of one distribution that can reach the threshold: their probabilities sum to at most 1."""


class Reduced(NamedTuple):
    """What is kept of n next-token distributions, m reference tokens looked up in them, on their device."""

    large: torch.Tensor  # [n, k] log-probabilities, in no order, -inf where fewer than k are large
    target_log_probs: torch.Tensor  # [m]
    target_stock_log_probs: torch.Tensor  # [m]
    target_is_greedy: torch.Tensor  # [m]
    log_sums: torch.Tensor  # [n] minus the log of the most probable token's probability
    log_normalizers: torch.Tensor  # [n]


class Distributions(NamedTuple):
    """What is kept of n next-token distributions, m reference tokens looked up in them, on the host."""

    target_log_probs: Floats  # [m] natural logs, in the same arithmetic as `large_probs`
    target_stock_log_probs: Floats  # [m] as a stock run computes them, for the harness's log-likelihood
    target_is_greedy: NDArray[np.bool_]  # [m] whether the reference token is the most probable one
    top_log_probs: Floats  # [n] natural log of the most probable token's probability
    large_probs: list[Floats]  # n arrays with every probability of at least `MIN_LARGE_PROB`
    log_normalizers: Floats  # [n] log-sum-exp of each row; not finite where the logits are broken

    @classmethod
    def of(cls, parts: Sequence[Floats]) -> "Distributions":
        """Return what was fetched: the arrays of a :class:`Reduced`, or of several, one after the other."""
        n = len(Reduced._fields)
        large, log_probs, stock_log_probs, is_greedy, log_sums, log_normalizers = (parts[i::n] for i in range(n))
        # A rounding error above 0 would be a probability above 1.
        large_probs = (np.exp(np.minimum(row, 0.0)) for part in large for row in part)
        return cls(
            target_log_probs=np.minimum(np.concatenate(log_probs), 0.0),
            target_stock_log_probs=np.concatenate(stock_log_probs),
            target_is_greedy=np.concatenate(is_greedy).astype(np.bool_),
            top_log_probs=np.minimum(-np.concatenate(log_sums), 0.0),
            large_probs=[probs[probs > 0] for probs in large_probs],
            log_normalizers=np.concatenate(log_normalizers),
        )


class Pass(NamedTuple):
    """One pass over logits [n, vocab_size], on their device; everything Full-ECE needs of a distribution."""

    top: torch.Tensor  # [n] largest logit
    log_sum: torch.Tensor  # [n] log of the sum of exp(z - top), float64 (float32 on MPS)
    large: torch.Tensor  # [n, k] logits of entries that may be large, in no order, -inf where there are fewer than k


def summarize(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> Distributions:
    """Reduce logits [n, vocab_size] and fetch what is kept of them, in one transfer (arguments: :func:`reduced`)."""
    return Distributions.of(to_host(*reduced(logits, rows, tokens)))


def reduced(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> Reduced:
    """Reduce logits [n, vocab_size] on their device, exact to their own precision.

    log p = z - logsumexp(z), with the sum in float64. A float32 log-softmax, which the stock run uses, is off by
    1e-5 at 49,000 entries on a CPU: metrics must not inherit that, and log-likelihoods must not differ from stock's
    by it, so both are returned. For half precision both are the exact one: stock's is rounded to 8 or 11 bits.

    Args:
        logits: [n, vocab_size], any float dtype, any device.
        rows: [m] which row each reference token belongs to.
        tokens: [m] the reference tokens' ids.
    """
    found = one_pass(logits)
    top, log_sum = found.top.to(found.log_sum.dtype), found.log_sum
    targets = logits[rows, tokens].to(log_sum.dtype)
    exact = targets - top[rows] - log_sum[rows]
    as_stock = _stock_log_probs(logits, found, rows, tokens) if logits.dtype == torch.float32 else exact
    large = found.large.to(log_sum.dtype) - top[:, None] - log_sum[:, None]
    return Reduced(large, exact, as_stock, _is_greedy(logits, found.top, rows, tokens), log_sum, top + log_sum)


def check_finite(log_normalizers: Floats, location: str) -> None:
    """Raise ValueError, naming the location in the data, where the logits were broken."""
    broken = log_normalizers[~np.isfinite(log_normalizers)]
    if len(broken):
        raise ValueError(f"{location}: the model's logits hold NaN or infinity (log-sum-exp {broken[0]})")


def dtype_of(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's dtype, as certificates have it."""
    return str(tensor.dtype).removeprefix("torch.")


def float64_or_widest(device: torch.device) -> torch.dtype:
    """Return the dtype for sums over a vocabulary: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def one_pass(logits: torch.Tensor, *, fixed_shape: bool | None = None) -> Pass:
    """Find the largest logit, the log-sum-exp and all entries of at least ``MIN_LARGE_PROB`` of each row.

    Each block is read from memory once, and nothing of its size outlives it. Entries are found through the sums of
    every 64 neighbours, of which the normaliser is made anyway: at most 101 of those can reach the threshold.

    ``fixed_shape``: open as many of those as could reach it, not as many as do: an accelerator would have to be halted
    to know. By default everywhere but on a CPU.
    """
    if fixed_shape is None:
        fixed_shape = logits.device.type != "cpu"
    n_chunked = logits.shape[-1] // _CHUNK * _CHUNK
    top, chunk_sums = _chunk_sums(logits, n_chunked)
    log_sum = chunk_sums.sum(-1, dtype=float64_or_widest(logits.device)).log()
    heads = chunk_sums[:, : n_chunked // _CHUNK]
    n_open = min(MAX_LARGE, heads.shape[1])
    if n_open and not fixed_shape:
        n_open = int((heads >= (log_sum + LOG_THRESHOLD).exp().to(heads.dtype)[:, None]).sum(-1).max())
    chosen = heads.topk(n_open, sorted=False).indices
    large = _chunked(logits, n_chunked).gather(1, chosen[:, :, None].expand(-1, -1, _CHUNK)).flatten(1)
    large = torch.cat([large, logits[:, n_chunked:]], dim=1).float()
    threshold = (top + (log_sum + LOG_THRESHOLD).to(top.dtype))[:, None]
    large = large.masked_fill(large < threshold, -torch.inf)
    n_kept = min(MAX_LARGE, large.shape[1])
    if not fixed_shape:
        n_kept = int((large > -torch.inf).sum(-1).max())
    return Pass(top, log_sum, large.topk(n_kept, sorted=False).values)


def _chunk_sums(logits: torch.Tensor, n_chunked: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's largest logit, and its sums of exp(z - top): one a chunk, then one an entry that is left.

    64 terms are added in float32; thousands of such sums are to be added in float64.
    """
    step = _rows_at_a_time(logits)
    work = torch.empty(min(step, len(logits)), logits.shape[-1], dtype=torch.float32, device=logits.device)
    tops, sums = [], []
    for start in range(0, len(logits), step):
        block = logits[start : start + step]
        z = block if block.dtype == torch.float32 else work[: len(block)].copy_(block)
        tops.append(z.amax(-1, keepdim=True))
        p = torch.sub(z, tops[-1], out=work[: len(block)]).exp_()
        sums.append(torch.cat([_chunked(p, n_chunked).sum(-1), p[:, n_chunked:]], dim=1))
    return torch.cat(tops)[:, 0], torch.cat(sums)


def _rows_at_a_time(logits: torch.Tensor) -> int:
    elements = _BLOCK_ELEMENTS if logits.device.type == "cpu" else 64 * _BLOCK_ELEMENTS
    return max(1, elements // logits.shape[-1])


def _chunked(z: torch.Tensor, n_chunked: int) -> torch.Tensor:
    return z[:, :n_chunked].view(len(z), n_chunked // _CHUNK, _CHUNK)


def _stock_log_probs(logits: torch.Tensor, found: Pass, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities by the float32 log-softmax of the stock run, without its output's size."""
    at_top = [block.log_softmax(-1).amax(-1) for block in torch.split(logits, _rows_at_a_time(logits))]
    log_sum = -torch.cat(at_top).to(found.log_sum.dtype)
    return (logits[rows, tokens].to(log_sum.dtype) - found.top.to(log_sum.dtype)[rows]) - log_sum[rows]


def _is_greedy(logits: torch.Tensor, top: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Say which reference tokens are the first of the most probable ones, as ``argmax`` has it."""
    if logits.device.type != "cpu":  # to know which are among them would halt the device
        return logits.argmax(-1)[rows] == tokens
    greedy = logits[rows, tokens] == top[rows]
    for some in torch.split(greedy.nonzero()[:, 0], _rows_at_a_time(logits)):
        greedy[some] = logits[rows[some]].argmax(-1) == tokens[some]
    return greedy
