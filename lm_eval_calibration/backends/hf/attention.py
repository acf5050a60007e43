"""Attention of a pack of rows behind a cache that all of them see: parts apart, merged by their log-sum-exps.

Attention over the union of two sets of keys is the mean of the attention over each, weighted by the sums of its
exponentials (online softmax; so do cascade attention in FlashInfer and vLLM). So the cached tokens and the pack's stem
need no mask, and the branches of a pack are computed each for itself (see :mod:`layout`). Transformers lets a model's
attention be chosen by name: ours is chosen while a pack is computed, whatever the model's own is.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lm_eval_calibration.backends.hf.layout import Block, Layout, additive
from lm_eval_calibration.backends.hf.prefixes import Step

NAME = "shared_prefixes"

Part = tuple[torch.Tensor, torch.Tensor]
"""Attention [batch, heads, queries, dim] over some keys, and its log-sum-exps [batch, heads, queries]."""


class _Pack:
    """The pack that is being computed, and how many layers have asked for its attention."""

    def __init__(self, step: Step, config: Any) -> None:
        self.step, self.config = step, config
        self.last_position = max(step.positions)
        self.layouts: dict[torch.device, Layout] = {}  # layers may be spread over devices
        self.calls = 0

    def layout(self, device: torch.device) -> Layout:
        """Return the pack's layout, with its tensors on this device."""
        if device not in self.layouts:
            self.layouts[device] = Layout(self.step, device)
        return self.layouts[device]

    def window(self, module: Any, stated: int | None) -> int | None:
        """Return the layer's window (None: it cuts nothing), on which the model's code and configuration must agree."""
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None)
        if kinds and kinds[module.layer_idx] != "sliding_attention":
            window = None
        if (stated or None) != (window or None):
            raise ValueError(f"a layer's window is {stated} where its configuration says {window}")
        return window if window and window <= self.last_position else None


_packs: list[_Pack] = []


@contextmanager
def apart(config: Any, step: Step) -> Iterator[None]:
    """Let the model with this text configuration compute this pack within the context.

    Raises TypeError after it if the model has asked for no attention by name.
    """
    own, pack = config._attn_implementation, _Pack(step, config)
    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    config._attn_implementation = NAME
    _packs.append(pack)
    try:
        yield
    finally:
        _packs.pop()
        config._attn_implementation = own
    if not pack.calls:
        raise TypeError("its attention can't be chosen")


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention [1, line, heads, dim] of a pack's line of tokens; arguments are those of transformers.

    query [1, heads, line, dim]; key and value [1, key heads, cached + line, dim], as the cache returns them.
    """
    pack = _packs[-1]
    pack.calls += 1
    layout = pack.layout(query.device)
    if (
        attention_mask is not None
        or position_bias is not None
        or key.shape[2] != layout.base + layout.kept + query.shape[2]
    ):
        raise TypeError("its attention needs more than queries, keys and values")
    one = _Layer(layout, key, value, pack.window(module, sliding_window), scaling or query.shape[-1] ** -0.5, softcap)
    out, log_sum = one.of_pack(query[:, :, : layout.n])
    if s_aux is not None:  # a key without a value
        out = out * torch.sigmoid(log_sum - s_aux.view(1, -1, 1))[..., None].to(out.dtype)
    filling = query.shape[2] - layout.n
    return torch.nn.functional.pad(out.transpose(1, 2), (0, 0, 0, 0, 0, filling)).contiguous(), None


class _Layer(NamedTuple):
    """One layer's attention over a pack."""

    layout: Layout
    key: torch.Tensor
    value: torch.Tensor
    window: int | None
    scale: float
    softcap: float | None

    def of_pack(self, query: torch.Tensor) -> Part:
        """Return the attention of all new tokens."""
        stem, base = self.layout.stem, self.layout.base
        parts = []
        if stem:
            own = slice(base, base + stem)
            at = self.layout.positions[own]
            sees = None if self.window is None else lambda: self._within(at <= at[:, None], at, at)
            part = self._over("stem", (query[:, :, :stem], self.key[:, :, own], self.value[:, :, own]), sees)
            parts.append(merged(self._before(query[:, :, :stem], base, own), part))
        if self.layout.blocks:
            rest = slice(base + self.layout.kept + stem, base + self.layout.kept + self.layout.n)
            parts.append(merged(self._before(query[:, :, stem:], base + stem, rest), self._branches(query)))
        if len(parts) == 1:
            return parts[0]
        return torch.cat([out for out, _ in parts], dim=2), torch.cat([log_sum for _, log_sum in parts], dim=2)

    def _before(self, query: torch.Tensor, n: int, which: slice) -> Part | None:
        """Return attention over the first n keys, which all of these queries see, as far as their windows reach."""
        reach = slice(0 if self.window is None else max(0, n - self.window + 1), n)
        if reach.start == n:
            return None
        key, value = self.key[:, :, reach], self.value[:, :, reach]
        if self.window is None:
            # Without a mask, heads that share keys may be queries of one head.
            groups = query.shape[1] // key.shape[1]
            folded = query.reshape(1, key.shape[1], groups * query.shape[2], -1)
            out, log_sum = attend(folded, key, value, scale=self.scale, softcap=self.softcap)
            return out.reshape(*query.shape[:3], -1), log_sum.reshape(query.shape[:3])
        of_both = self.layout.positions[which], self.layout.positions[reach]
        all_of_them = torch.ones(1, 1, dtype=torch.bool, device=key.device)
        return self._over(("before", n), (query, key, value), lambda: self._within(all_of_them, *of_both))

    def _branches(self, query: torch.Tensor) -> Part:
        """Return attention of the tokens after the stem over those that they see there."""
        layout = self.layout
        queries = query[0].index_select(1, layout.queries)
        key, value = (tensor[0, :, layout.base :].index_select(1, layout.keys) for tensor in (self.key, self.value))
        found, q, k = [], 0, 0
        for number, block in enumerate(layout.blocks):
            n, length, depth = block.shape
            own, path = slice(q, q + n * length), slice(k, k + n * depth)
            q, k = own.stop, path.stop
            # [branches, heads, length or depth, dim]
            tensors = [
                tensor[:, part].view(len(tensor), n, -1, tensor.shape[2]).transpose(0, 1)
                for tensor, part in ((queries, own), (key, path), (value, path))
            ]
            is_causal = block.sees is None and self.window is None
            found.append(self._over(number, tensors, None if is_causal else partial(self._of_block, block, own, path)))
        out = torch.cat([out.transpose(0, 1).flatten(1, 2) for out, _ in found], dim=1)
        log_sum = torch.cat([log_sum.transpose(0, 1).flatten(1, 2) for _, log_sum in found], dim=1)
        return out.index_select(1, layout.inverse)[None], log_sum.index_select(1, layout.inverse)[None]

    def _of_block(self, block: Block, own: slice, path: slice) -> torch.Tensor:
        """Return which keys the queries of a block see."""
        layout, (n, length, depth) = self.layout, block.shape
        queries = layout.positions[layout.base + layout.kept + layout.queries[own]].view(n, length)
        keys = layout.positions[layout.base + layout.keys[path]].view(n, depth)
        if block.sees is not None:
            return self._within(block.sees, queries, keys)
        return self._within(torch.ones(length, depth, dtype=torch.bool, device=keys.device).tril(), queries, keys)

    def _within(self, sees: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return what queries see within their windows, given the positions of queries and keys."""
        if self.window is not None:
            sees = sees & (queries[..., :, None] - keys[..., None, :] < self.window)
        return sees[:, None] if sees.dim() == 3 else sees

    def _over(self, kind: Hashable, tensors: Sequence[torch.Tensor], sees: Callable[[], torch.Tensor] | None) -> Part:
        """Return attention of queries over keys and values where ``sees()``, [queries, keys], says so (None: causally).

        ``kind`` is what the pack's layers have in common here.
        """
        query, key, value = tensors
        mask = None if sees is None else self.layout.mask((kind, self.window), query.dtype, sees)
        return attend(query, key, value, mask, causal=sees is None, scale=self.scale, softcap=self.softcap)


def merged(a: Part | None, b: Part) -> Part:
    """Return the attention over both parts' keys."""
    if a is None:
        return b
    weight = torch.sigmoid(a[1].float() - b[1].float())[..., None]
    out = torch.lerp(b[0].float(), a[0].float(), weight).to(b[0].dtype)
    return out, torch.logaddexp(a[1].float(), b[1].float())


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
    scale: float,
    softcap: float | None = None,
) -> Part:
    """Return softmax(scale * query key^T) value and its log-sum-exps, by the device's kernel where it has one.

    query [batch, heads, queries, dim]; key, value [batch, key heads, keys, dim]; ``mask`` [..., queries, keys] is
    added to the scores.
    A query that sees nothing has a log-sum-exp near the dtype's minimum.
    """
    device, aten = query.device.type, torch.ops.aten
    if softcap is None and query.shape[-1] == value.shape[-1] and query.dtype == key.dtype:
        if device == "cpu":
            found = aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal, attn_mask=mask, scale=scale
            )
            return found[0], found[1]
        half = query.dtype in (torch.float16, torch.bfloat16)
        if device == "cuda" and half and mask is None and query.shape[-1] <= 256:
            found = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)
            return found[0], found[1]
    return by_definition(query, key, value, mask, causal=causal, scale=scale, softcap=softcap)


def by_definition(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
    scale: float,
    softcap: float | None = None,
) -> Part:
    """Return what :func:`attend` returns, from all scores in float32."""
    batch, heads, n, _ = query.shape
    folded = query.reshape(batch, key.shape[1], -1, query.shape[-1])
    scores = (folded @ key.transpose(-1, -2)).float().reshape(batch, heads, n, -1) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = additive(torch.ones(n, n, dtype=torch.bool, device=query.device).tril(), scores.dtype)
    if mask is not None:
        scores = scores + mask
    log_sum = scores.logsumexp(-1)
    weights = (scores - log_sum[..., None]).exp().to(value.dtype).reshape(batch, key.shape[1], -1, key.shape[2])
    return (weights @ value).reshape(batch, heads, n, -1), log_sum
