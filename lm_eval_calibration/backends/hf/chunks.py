"""Logits at many positions, some at a time: those of all positions of a batch never exist.

The layers before the output layer are computed once; then the model is called again with what they returned, so that
whatever it makes of the output layer's logits (caps, scales, biases) happens as in one call.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.hf.output_layer import agree, only_positions
from lm_eval_calibration.backends.hf.sharded import is_sharded
from lm_eval_calibration.backends.hf.transfer import to_device


def logits_in_chunks(
    lm: HFLM, inputs: torch.Tensor, row: torch.Tensor, position: torch.Tensor, size: int
) -> Iterator[torch.Tensor]:
    """Yield the logits [at most ``size``, vocab_size] at positions of a batch, [n] each of ``row`` and ``position``."""
    decoder = _decoder(lm.model)
    kept: list[Any] = []
    forward = decoder.forward

    def once(*arguments: Any, **options: Any) -> Any:
        if not kept:
            kept.append(forward(*arguments, **options))
        return kept[0]

    with replaced(decoder, forward=once):
        for rows, positions in zip(torch.split(row, size), torch.split(position, size), strict=True):
            with only_positions(lm, rows, positions, inputs.shape[1]):
                logits = lm._model_call(inputs)
            yield logits[0]
            del logits


def can_chunk(lm: HFLM, tokens: Sequence[int]) -> bool:
    """Try it once on a few tokens against one call.

    A model whose weights are spread over ranks that have different texts is not tried: in a call, all ranks compute all
    layers. (Ranks of tensor parallelism have the same texts, and are one to the harness.)
    """
    if lm.world_size > 1 and is_sharded(lm.model):
        return False
    inputs = to_device([tokens[:8], tokens[:8]], lm.device)
    row, position = to_device([(i, j) for i in range(2) for j in range(inputs.shape[1])], lm.device).T
    try:
        with only_positions(lm, row, position, inputs.shape[1]):
            expected = lm._model_call(inputs)[0]
        found = torch.cat(list(logits_in_chunks(lm, inputs, row, position, size=3)))
        agrees, reason = agree(found, expected), "its logits differ then"
    except Exception as error:  # custom model code may raise anything
        agrees, reason = False, repr(error)
    if not agrees:
        logger.info("%s: the logits of a batch are computed at once (%s).", type(lm.model).__name__, reason)
    return agrees


def _decoder(model: Any) -> Any:
    """Return the layers before the output layer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters
    return base.get_decoder()
