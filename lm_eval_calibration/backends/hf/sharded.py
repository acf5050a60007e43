"""A model whose weights are spread over ranks (FSDP, ZeRO 3) can be called only by all of them together.

The harness pads the requests of its own types, so that all ranks make equally many calls. Ours need other numbers of
calls on each rank (equal prompts are computed once, shared prefixes too). So ranks announce every call to each other,
and one that has finished makes empty calls until all have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch.distributed.tensor import DTensor


@contextmanager
def joint_calls(lm: HFLM) -> Iterator[None]:
    """Let every call of the model within the context be made by all ranks, if it has to be."""
    if lm.world_size == 1 or not is_sharded(lm.model):
        yield
        return

    def join(*_: Any) -> None:
        _any_has_a_call(lm, True)

    # In front of the hooks that gather the weights: those, too, wait for the other ranks.
    handle = lm.model.register_forward_pre_hook(join, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    one = torch.zeros(1, 1, dtype=torch.long, device=lm.device)
    labels = {"attn_mask": torch.ones_like(one), "labels": one} if lm.backend == "seq2seq" else {}
    while _any_has_a_call(lm, False):
        lm._model_call(one, **labels)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether no rank has all of the model's weights."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return True
    # ds_id: DeepSpeed's mark of a weight of which each rank has a part.
    return any(isinstance(weight, DTensor) or hasattr(weight, "ds_id") for weight in model.parameters())


def _any_has_a_call(lm: HFLM, mine: bool) -> bool:
    return bool(lm.all_gather(torch.tensor(int(mine), device=lm.device)).any())
