"""Which keys each token of a pack is compared with, in blocks: attention with few masked entries.

A pack (see :mod:`prefixes`) begins with a *stem*: tokens that all later ones see, as they see the cached ones. No mask
is needed for those. What is left are *branches*: a branch is a chain of tokens that stands in one piece, behind tokens
of earlier branches, if any, or kept ones (see :mod:`behind`). Branches of like lengths are a block: queries [branches,
length], keys [branches, depth].
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from math import log2
from typing import NamedTuple

import numpy as np
import torch

from lm_eval_calibration.backends.hf import cost
from lm_eval_calibration.backends.hf.prefixes import Step
from lm_eval_calibration.backends.hf.transfer import to_device

_MOST_KEYS = 16
"""A token's keys that blocks may gather. Where branches leave branches again and again, they would copy too many: then
all of them are one block with a mask."""


_SHORTEST, _FEWEST = 16, 4
"""Tokens of a branch, and branches, where a device likes few shapes: there both are powers of two, and not less."""


class Block(NamedTuple):
    """Branches whose tokens are compared with keys of their own."""

    queries: list[list[int]]  # [branches, length] numbers of new tokens
    keys: list[list[int]]  # [branches, depth] numbers of tokens after the base: kept ones, then new ones
    sees: torch.Tensor | None  # [branches, length, depth]; None: each query sees as many keys as its number, and itself

    @property
    def shape(self) -> tuple[int, int, int]:
        """Branches, length, depth."""
        return len(self.queries), len(self.queries[0]), len(self.keys[0])


class Layout:
    """The blocks of one pack.

    Attributes:
        base: cached tokens, which all see.
        kept: cached tokens after these, of which each new one sees some.
        stem: new tokens that all later ones see.
        n: new tokens; the line may be longer, filled up with tokens that count nothing.
        blocks: of the tokens after the stem.
        queries, keys: those of all blocks, one after the other, so that a layer gathers them in one operation.
        inverse: [n - stem] which entry of the blocks' queries, laid one after the other, is each token's.
        positions: [base + kept + n] of the cached and the new tokens in their rows.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self.base, self.kept, self.n = step.base, len(step.kept), len(step.tokens)
        self.stem = step.stem
        self.positions = to_device([*range(step.base), *step.kept, *step.positions], device)
        branches = list(_branches(step, self.stem))
        if sum(len(keys) for _, keys in branches) > _MOST_KEYS * (self.kept + self.n):
            self.blocks = [_one_block(step, branches, device)]
            slots = list(range(self.n - self.stem))
        else:
            few_shapes = cost.device_of(device).multiple > 1
            groups = _alike(branches, few_shapes)
            self.blocks = [_block(group, device, few_shapes) for group in groups]
            slots = _slots(groups, self.blocks, self.stem, self.n)
        self.inverse = to_device(slots, device)
        self.queries = to_device([token for block in self.blocks for own in block.queries for token in own], device)
        self.keys = to_device([token for block in self.blocks for path in block.keys for token in path], device)
        self._masks: dict[Hashable, torch.Tensor] = {}

    def mask(self, kind: Hashable, dtype: torch.dtype, sees: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what ``sees`` returns as a mask to add, made once for all layers."""
        if (kind, dtype) not in self._masks:
            self._masks[kind, dtype] = additive(sees(), dtype)
        return self._masks[kind, dtype]

    def attended(self) -> int:
        """Count the entries of attention that are computed, masked and padded ones, too (of causal blocks half)."""
        entries = self.stem * (self.stem + 1) // 2 + self.stem * self.base
        entries += (self.n - self.stem) * (self.base + self.stem)
        for block in self.blocks:
            n, length, depth = block.shape
            entries += n * length * depth if block.sees is not None else n * length * (length + 1) // 2
        return entries


def additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask that is added to scores: 0, or the dtype's minimum where a query doesn't see a key."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)


Branch = tuple[range, list[int]]
"""Tokens of the branch, by number among the new ones; all that its last token sees after the base and the stem, itself
included, by number after the base."""


def _branches(step: Step, stem: int) -> Iterator[Branch]:
    path: list[int] = []
    start, kept = stem, len(step.kept)
    for i in range(stem + 1, len(step.tokens) + 1):
        if i == len(step.tokens) or i in step.paths or step.positions[i] != step.positions[i - 1] + 1:
            before = step.paths[start] if start in step.paths else path[: step.positions[start] - step.base - stem]
            path = [*before, *range(kept + start, kept + i)]
            yield range(start, i), path
            start = i


def visible(step: Step, device: torch.device) -> torch.Tensor:
    """Return which tokens after the base each new one sees, [new, kept + new]."""
    return _visible(step, _branches(step, 0), device)


def _visible(step: Step, branches: Iterable[Branch], device: torch.device) -> torch.Tensor:
    n = len(step.tokens)
    if not step.kept:
        numbers, ends = torch.arange(n, device=device), to_device(step.ends, device)
        return (numbers <= numbers[:, None]) & (numbers[:, None] <= ends)
    sees = np.zeros((n, len(step.kept) + n), dtype=bool)
    for own, path in branches:
        sees[np.ix_(own, path)] = np.tri(len(own), len(path), len(path) - len(own), dtype=bool)
    return torch.from_numpy(sees).to(device)


def _alike(branches: list[Branch], few_shapes: bool) -> list[list[Branch]]:
    """Group branches of one depth, and of like lengths: at most 1.4 times as long as another; for few shapes twice."""
    groups: dict[tuple[bool | int, ...], list[Branch]] = {}
    for own, path in branches:
        sizes = (
            _round_up(len(part), _SHORTEST) if few_shapes else int(2 * log2(max(len(part), 8))) for part in (own, path)
        )
        groups.setdefault((len(own) == len(path), *sizes), []).append((own, path))
    return list(groups.values())


def _round_up(n: int, least: int) -> int:
    """Return the least power of two that is not less than either."""
    return 1 << (max(n, least) - 1).bit_length()


def _block(group: list[Branch], device: torch.device, few_shapes: bool) -> Block:
    """Return branches as a block; for few shapes with lengths and numbers of branches rounded up."""
    length, depth = max(len(own) for own, _ in group), max(len(path) for _, path in group)
    if few_shapes:
        length, depth = _round_up(length, _SHORTEST), _round_up(depth, _SHORTEST)
        group = [*group, *group[-1:] * (_round_up(len(group), _FEWEST) - len(group))]
    queries = [[*own, *[own[-1]] * (length - len(own))] for own, _ in group]
    keys = [[*path, *[path[-1]] * (depth - len(path))] for _, path in group]
    sees = None
    if any(len(own) < len(path) for own, path in group):
        before = [[len(path) - len(own)] for own, path in group]
        query = torch.arange(length, device=device)[:, None] + to_device(before, device)[:, :, None]
        sees = torch.arange(depth, device=device) <= query
    return Block(queries, keys, sees)


def _slots(groups: list[list[Branch]], blocks: list[Block], stem: int, n: int) -> list[int]:
    slots = [0] * (n - stem)
    first = 0
    for group, block in zip(groups, blocks, strict=True):
        n_branches, length, _ = block.shape
        for k, (own, _) in enumerate(group):
            for i, token in enumerate(own):
                slots[token - stem] = first + k * length + i
        first += length * n_branches
    return slots


def _one_block(step: Step, branches: Iterable[Branch], device: torch.device) -> Block:
    stem = step.stem
    sees = _visible(step, branches, device)[stem:, stem:]
    n = len(step.tokens)
    return Block([[*range(stem, n)]], [[*range(stem, len(step.kept) + n)]], sees[None])
