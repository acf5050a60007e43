"""Logits at chosen positions only: the output layer is shown no other hidden states.

So logits of size [batch, length, vocabulary] never exist, and whatever a backend does around its model call (steering,
autocast, adapters) still happens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger


@contextmanager
def only_positions(lm: HFLM, row: torch.Tensor, position: torch.Tensor, length: int) -> Iterator[None]:
    """Let the output layer see the hidden states of some positions only, as one row [1, n, hidden_size].

    The model is called within the context. ``row`` and ``position``, [n] each, are those of the batch; ``length`` is
    that of its lines, without tokens of prompt tuning, which come before them.
    """

    def pick(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = arguments
        offset = hidden.shape[1] - length
        picked = hidden[row.to(hidden.device), position.to(hidden.device) + offset]
        return (picked.unsqueeze(0), *rest)

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def can_pick(lm: HFLM, tokens: tuple[int, ...]) -> bool:
    """Try it once on a few tokens against the full logits: models are free to compute logits as they like."""
    inputs = torch.tensor([tokens[:8], tokens[:8]], dtype=torch.long, device=lm.device)
    last = inputs.shape[1] - 1
    rows = torch.tensor([0, 1, 1], device=lm.device)
    positions = torch.tensor([last, 0, last], device=lm.device)
    try:
        with only_positions(lm, rows, positions, inputs.shape[1]):
            picked = lm._model_call(inputs)
        full = lm._model_call(inputs)
        expected = full[rows, positions + (full.shape[1] - inputs.shape[1])].float()
        # A matrix product of other size adds up in another order: in float32 that is some 1e-5 of the largest logit.
        tolerance = max(1e-4, 4 * torch.finfo(full.dtype).eps) * float(expected.abs().max())
        agrees = picked.shape == (1, *expected.shape) and bool(
            torch.allclose(picked[0].float(), expected, rtol=0, atol=tolerance, equal_nan=True)
        )
        reason = "its logits differ then"
    except Exception as error:  # custom model code may raise anything; the plain path is always there
        agrees, reason = False, repr(error)
    if not agrees:
        logger.info(
            "%s can't compute logits for chosen positions only (%s): using all logits, as the stock run does.",
            type(lm.model).__name__,
            reason,
        )
    return agrees
