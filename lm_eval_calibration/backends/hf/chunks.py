"""Logits at many positions, some at a time, in one call of the model: those of all positions never exist.

When the model calls its output layer, what it does with that layer's logits (caps, scales, biases) is repeated for some
positions after the others, the layers before it computed once. All this happens within one call: so it does wherever
weights that are spread over ranks are gathered for a call, and ranks with other texts make as many calls.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.harness_calls import replaced
from lm_eval_calibration.backends.hf.output_layer import agree, at
from lm_eval_calibration.backends.hf.sharded import is_sharded

Take = Callable[[torch.Tensor], None]
"""Takes logits [n, vocab_size]."""


class Call(NamedTuple):
    """A call of the model, and the positions of its batch at which logits are wanted, [n] each."""

    make: Callable[[], Any]
    row: torch.Tensor
    position: torch.Tensor
    length: int  # of the batch's lines, without tokens of prompt tuning


def logits_in_chunks(lm: HFLM, call: Call, size: int, take: Take) -> None:
    """Give the logits at a call's positions to ``take``, in their order, at most ``size`` positions at a time."""
    model, *layers = _modules(lm)
    head = lm.model.get_output_embeddings()
    forward, output = model.forward, head.forward
    again: Callable[[], Any] | None = None
    shown: torch.Tensor | None = None  # to the output layer

    def of_model(*arguments: Any, **options: Any) -> Any:
        nonlocal again
        again = partial(forward, *arguments, **_without_labels(model, options))
        return again()

    def of_head(hidden: torch.Tensor, *rest: Any) -> Any:
        nonlocal shown
        if shown is None:
            assert again is not None
            for row, position in zip(torch.split(call.row, size), torch.split(call.position, size), strict=True):
                shown = at(hidden, row, position, call.length).unsqueeze(0)
                take(again().logits[0])
            shown = hidden[:1, :1]  # of the call itself, whose logits nobody reads
        return output(shown, *rest)

    with ExitStack() as contexts:
        for layer in layers:
            contexts.enter_context(_once(layer))
        contexts.enter_context(replaced(head, forward=of_head))
        contexts.enter_context(replaced(model, forward=of_model))
        call.make()


def can_chunk(lm: HFLM, call: Call, expected: torch.Tensor) -> bool:
    """Whether a call on a few tokens gives the expected logits [n, vocab_size] in chunks.

    Not tried where calls of the output layer or of the layers before it alone would wait for other ranks.
    """
    found: list[torch.Tensor] = []
    try:
        if lm.world_size > 1 and is_sharded(lm.model) and _would_wait(lm):
            raise TypeError("other ranks would have to call these layers, too")
        logits_in_chunks(lm, call, 3, found.append)
        agrees, reason = agree(torch.cat(found), expected), "its logits differ then"
    except Exception as error:  # custom model code may raise anything
        agrees, reason = False, repr(error)
    if not agrees:
        logger.info("%s: the logits of a batch are computed at once (%s).", type(lm.model).__name__, reason)
    return agrees


def _modules(lm: HFLM) -> list[Any]:
    """Return the model without what is around it, and the layers before its output layer."""
    base = lm.model.get_base_model() if hasattr(lm.model, "get_base_model") else lm.model  # adapters
    return [base, base.get_decoder(), *([base.get_encoder()] if lm.backend == "seq2seq" else [])]


@contextmanager
def _once(layer: Any) -> Iterator[None]:
    """Let the layer compute once, and return the same again."""
    kept: list[Any] = []
    forward = layer.forward

    def once(*arguments: Any, **options: Any) -> Any:
        if not kept:
            kept.append(forward(*arguments, **options))
        return kept[0]

    with replaced(layer, forward=once):
        yield


def _without_labels(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what an encoder-decoder reads where it is given labels: for those it would compute a loss."""
    if options.get("labels") is None:
        return options
    read = model.prepare_decoder_input_ids_from_labels(labels=options["labels"])
    return {**options, "labels": None, "decoder_input_ids": read, "use_cache": False}


def _would_wait(lm: HFLM) -> bool:
    """Whether calls within a call gather weights: FSDP's first version does in its forward, others do in hooks."""
    model, *layers = _modules(lm)
    hooked = any(layer._forward_pre_hooks for layer in (*layers, lm.model.get_output_embeddings()))
    return hooked or type(model).__name__ == "FullyShardedDataParallel"
