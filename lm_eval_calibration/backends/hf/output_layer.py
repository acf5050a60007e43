"""What a call of the model need not compute or keep: logits nobody reads, and a cache nobody reads.

The output layer is shown the hidden states of chosen positions only. So logits of size [batch, length, vocabulary]
never exist, and whatever a backend does around its model call (steering, autocast, adapters) still happens.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf.transfer import to_device


def at(values: torch.Tensor, row: torch.Tensor, position: torch.Tensor, length: int) -> torch.Tensor:
    """Return values [batch, length, size] of a model at rows and positions, [n, size].

    Layers may lie on other devices than the inputs; tokens of prompt tuning come before the inputs' ``length``.
    """
    return values[row.to(values.device), position.to(values.device) + (values.shape[1] - length)]


@contextmanager
def only_positions(lm: HFLM, row: torch.Tensor, position: torch.Tensor, length: int) -> Iterator[None]:
    """Let the output layer see the hidden states of some positions only, as one row [1, n, hidden_size].

    The model is called within the context. ``row`` and ``position``, [n] each, are those of the batch; ``length`` is
    that of its lines, without tokens of prompt tuning, which come before them.
    """

    def pick(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = arguments
        return (at(hidden, row, position, length).unsqueeze(0), *rest)

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


class _KeepsNothing(DynamicCache):  # type: ignore[misc]
    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return keys, values


@contextmanager
def without_cache(lm: HFLM) -> Iterator[None]:
    """Let the model keep no keys and values within the context: a batch that is computed in one call reads none.

    `use_cache=False` alone would halt the device in each call: transformers then looks for sequences that are packed
    into one line. So the model gets a cache that keeps nothing, too.
    """
    name = cache_argument(lm)

    def leave_out(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {"use_cache": False, name: _KeepsNothing(), **options}

    handle = lm.model.register_forward_pre_hook(leave_out, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def cache_argument(lm: HFLM) -> str:
    """Return what the model calls its cache: transformers renamed it, and models from elsewhere have the old name."""
    model = lm.model.get_base_model() if hasattr(lm.model, "get_base_model") else lm.model  # adapters pass it on
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


class Spared(NamedTuple):
    """What a model's calls can do without."""

    logits: bool  # those of other positions than the chosen ones
    cache: bool


def spared(lm: HFLM, tokens: tuple[int, ...]) -> Spared:
    """Try it on a few tokens against a plain call: models are free to compute logits as they like.

    (And some pass keys and values from layer to layer in their cache.)
    """
    inputs = to_device([tokens[:8], tokens[:8]], lm.device)
    expected = lm._model_call(inputs)
    for candidate in (Spared(True, True), Spared(True, False), Spared(False, True)):
        reason = _reason_against(lm, candidate, inputs, expected)
        if reason is None:
            break
        what = [name for name, holds in candidate._asdict().items() if holds]
        logger.info("%s can't spare %s (%s).", type(lm.model).__name__, " and ".join(what), reason)
    else:
        candidate = Spared(False, False)
    if not candidate.logits:
        logger.info("%s: using all logits, as the stock run does.", type(lm.model).__name__)
    return candidate


def _reason_against(lm: HFLM, what: Spared, inputs: torch.Tensor, expected: torch.Tensor) -> str | None:
    last = inputs.shape[1] - 1
    rows, positions = to_device([[0, last], [1, 0], [1, last]], lm.device).T
    wanted = at(expected, rows, positions, inputs.shape[1])
    try:
        with ExitStack() as contexts:
            if what.cache:
                contexts.enter_context(without_cache(lm))
            if what.logits:
                contexts.enter_context(only_positions(lm, rows, positions, inputs.shape[1]))
            found = lm._model_call(inputs)
        agrees = agree(found, wanted[None] if what.logits else expected)
    except Exception as error:  # custom model code may raise anything; the plain path is always there
        return repr(error)
    return None if agrees else "its logits differ then"


def agree(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits are equal but for rounding.

    A matrix product of other size adds up in another order: in float32 that is some 1e-5 of the largest logit.
    """
    tolerance = max(1e-4, 4 * torch.finfo(expected.dtype).eps) * float(expected.float().abs().max())
    return logits.shape == expected.shape and bool(
        torch.allclose(logits.float(), expected.float(), rtol=0, atol=tolerance, equal_nan=True)
    )
