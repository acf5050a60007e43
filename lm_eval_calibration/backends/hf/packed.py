"""The model's calls for rows that share prefixes (see :mod:`prefixes`): one line of tokens behind a cache.

A pack is one line [1, length]: no padding between rows, no copy of the cache for each row. Its tokens see the cached
ones and those of their own row, either by an attention of ours that computes these parts apart (:mod:`attention`), or,
where a model's attention can't be chosen, by a mask: that is the reference. Sliding windows are cut by position, so the
cache keeps all tokens of one row at most.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache

from lm_eval_calibration.backends.certificate import logger
from lm_eval_calibration.backends.hf import cost
from lm_eval_calibration.backends.hf.attention import apart
from lm_eval_calibration.backends.hf.behind import Next, steps_behind
from lm_eval_calibration.backends.hf.layout import visible
from lm_eval_calibration.backends.hf.output_layer import cache_argument, only_positions
from lm_eval_calibration.backends.hf.prefixes import Plan, Step, Tokens
from lm_eval_calibration.backends.hf.transfer import to_device

Attention = Literal["apart", "masked"]

_KINDS = ("full_attention", "sliding_attention")

_LEAST_TOKENS = 128
"""Of a pack: where memory doesn't suffice for that, plain batches are tried."""


def reason_unsupported(lm: HFLM, longest: int) -> str | None:
    """Say why prompts of up to ``longest`` tokens can't share prefixes (None: they can, as far as is known)."""
    config = text_config(lm)
    unknown = sorted(set(attention_kinds(config)).difference(_KINDS), key=str)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    key = "original_max_position_embeddings"
    depends_on_length = rope.get("rope_type") in ("dynamic", "longrope")
    adapter = getattr(lm.model, "active_peft_config", None)
    reasons = {
        f"{type(lm).__name__} has a model call of its own": type(lm)._model_call is not HFLM._model_call,
        "its adapter puts tokens before the prompt": getattr(adapter, "is_prompt_learning", False),
        f"it has layers of type {', '.join(map(str, unknown))}": unknown,
        "its configuration names no attention": getattr(config, "_attn_implementation", None) is None,
        "its position encoding depends on the prompt's length": depends_on_length
        and longest > (getattr(config, key, None) or rope.get(key) or 0),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def text_config(lm: HFLM) -> Any:
    """Return the language model's configuration; models from elsewhere have their own classes of it."""
    config: Any = getattr(lm.model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def attention_kinds(config: Any) -> list[str]:
    """Return the kinds of attention in a model's layers."""
    window = getattr(config, "sliding_window", None)
    return list(getattr(config, "layer_types", None) or [_KINDS[1] if window else _KINDS[0]])


class PackedForward:
    """Calls of the model on the steps of a plan, one family after the other."""

    def __init__(self, lm: HFLM, attention: Attention, *, fills: bool = True) -> None:
        """``fills``: whether packs are filled up to lengths that the device likes."""
        self.lm, self.config, self.attention = lm, text_config(lm), attention
        self.kinds = sorted(set(attention_kinds(self.config)))
        self.cache = DynamicCache()  # without a configuration: every layer keeps every token
        self.line: list[int] = []  # positions of the cached tokens
        self.cache_argument = cache_argument(lm)
        self.multiple = cost.device_of(lm.device).multiple if fills else 1

    def __call__(self, step: Step, columns: Sequence[int]) -> torch.Tensor:
        """Return the logits [n, vocab_size] of these of the step's tokens."""
        lm, device = self.lm, self.lm.device
        filled = _filled(step, self.multiple)
        self._make_room(filled)
        tokens, positions = to_device([filled.tokens, filled.positions], device)
        picked = to_device(columns, device)
        mask = self._masks(filled, positions) if self.attention == "masked" else None
        dtype = lm.mixed_precision_dtype
        with (
            torch.no_grad(),
            torch.autocast(device_type=device.type, dtype=dtype, enabled=dtype is not None),
            only_positions(lm, torch.zeros_like(picked), picked, len(filled.tokens)),
            self._attention(step),
        ):
            logits: torch.Tensor = lm.model(
                tokens[None],
                attention_mask=mask,
                position_ids=positions[None],
                use_cache=True,
                **{self.cache_argument: self.cache},
            ).logits
        return logits[0]

    def _make_room(self, step: Step) -> None:
        """Drop from the cache what the step doesn't find useful."""
        n = step.base + len(step.kept)
        if n == 0:
            self.cache = DynamicCache()
        elif n < len(self.line):
            self.cache.crop(n - len(self.line))  # negative: so many from the end
        self.line = [*self.line[:n], *step.positions]

    def _attention(self, step: Step) -> AbstractContextManager[None]:
        if self.attention == "masked":
            return nullcontext()
        return apart(self.config, step)

    def _masks(self, step: Step, positions: torch.Tensor) -> Any:
        masks = {kind: self._mask(kind, step, positions) for kind in self.kinds}
        return masks if len(masks) > 1 else masks[self.kinds[0]]

    def _mask(self, kind: str, step: Step, positions: torch.Tensor) -> torch.Tensor:
        """Return which tokens each new one sees, [1, 1, new, cached + new]."""
        device = positions.device
        own = visible(step, device)
        sees = torch.cat([own.new_ones(len(own), step.base), own], dim=1)
        if kind == "sliding_attention":
            seen = torch.cat([to_device([*range(step.base), *step.kept], device), positions])
            sees &= positions[:, None] - seen < self.config.sliding_window
        if self.config._attn_implementation == "eager":  # adds its mask
            dtype = self.lm.model.dtype
            mask = torch.zeros(1, 1, *sees.shape, dtype=dtype, device=device)
            return mask.masked_fill_(~sees, torch.finfo(dtype).min)
        return sees[None, None]


def _filled(step: Step, multiple: int) -> Step:
    """Return the step with tokens at its end that nobody sees, up to a multiple of so many."""
    n = len(step.tokens)
    more = -n % multiple
    return step._replace(
        tokens=[*step.tokens, *step.tokens[-1:] * more],
        positions=[*step.positions, *step.positions[-1:] * more],
        ends=[*step.ends, *range(n, n + more)],
    )


Rows = Sequence[tuple[Tokens, int]]
"""Distinct rows, and how many of their last tokens are scored."""

Consume = Callable[[list[int], torch.Tensor, list[list[int]]], None]
"""Takes rows by number, logits [n, vocab_size], and for each row which of the n are its scored positions."""

Followers = Callable[[], Sequence[Next]]
"""Returns rows that may go on behind those consumed last, with numbers of their own."""


def score(
    lm: HFLM, rows: Rows, plan: Plan, attention: Attention, consume: Consume, *, followers: Followers = tuple
) -> set[int]:
    """Give the logits of rows that share prefixes to ``consume``; return which rows these were.

    Rows that go on behind a pack are asked for when its rows are consumed, and consumed before the next pack is made.
    Where memory doesn't suffice, what is left is tried in smaller packs; what is left even then is not scored.
    """
    done: set[int] = set()
    left = list(range(len(rows)))
    while True:
        packs = _Packs(lm, attention, [rows[i][0] for i in left], plan.max_tokens)
        try:
            for step in plan.all_steps():
                for numbers, logits, indices in packs.of(step):
                    names = [left[i] for i in numbers]
                    consume(names, logits, indices)
                    done.update(names)
                    for more in packs.behind(step, followers()):
                        consume(*more)
        except torch.OutOfMemoryError:
            most = plan.max_tokens // 2
        else:
            return done
        del packs
        _free_memory(lm.device)  # what the error holds is free by now
        if most < _LEAST_TOKENS:
            logger.warning("Out of memory: prompts that are left don't share prefixes.")
            return done
        logger.warning("Out of memory: prompts that share prefixes are read %d tokens at a time.", most)
        left = [i for i in range(len(rows)) if i not in done]
        plan = Plan([rows[i][0] for i in left], [rows[i][1] for i in left], most)


class _Packs:
    """What is consumed, a pack at a time."""

    def __init__(self, lm: HFLM, attention: Attention, rows: Sequence[Tokens], max_tokens: int) -> None:
        self.forward, self.rows, self.max_tokens = PackedForward(lm, attention), rows, max_tokens

    def of(self, step: Step) -> Iterator[tuple[list[int], torch.Tensor, list[list[int]]]]:
        """Yield the step's rows, if it has any."""
        columns = sorted({column for _, scored in step.rows for column in scored}) or [0]
        logits = self.forward(step, columns)
        if step.rows:
            index = {column: i for i, column in enumerate(columns)}
            yield [row for row, _ in step.rows], logits, [[index[i] for i in scored] for _, scored in step.rows]

    def behind(self, step: Step, nexts: Sequence[Next]) -> Iterator[tuple[list[int], torch.Tensor, list[list[int]]]]:
        """Yield the rows that go on behind those of the step, which was the last one."""
        if not nexts:
            return
        rows = {number: self.rows[number] for number, _ in step.rows}
        for more in steps_behind(step, self.forward.line, rows, nexts, self.max_tokens):
            yield from self.of(more)


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
