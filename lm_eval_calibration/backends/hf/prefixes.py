"""Which tokens to compute only once: a plan for rows of tokens that share prefixes.

Sorted, rows that share a prefix are neighbours. They are cut into *packs*: a pack is one line of tokens that a model
reads in one call, in which every shared prefix occurs once, as in a trie. Each token gets its position in its
own row and where the tokens that continue it end, so it can be made to see its own row only. The first row of a pack
is complete there, so its tokens can stay in the cache for the next pack, as far as that one shares them.

What it costs: a row of n tokens that shares its first m with another one of its pack or with the cached tokens adds
n - m tokens, against n in a plain batch (and what pads it). Where a family fills several packs these are cut to equal
sizes, so that calls have few shapes and none is short.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

Tokens = tuple[int, ...]
Pack = tuple[int, int]
"""First row and end, in sorted order."""

LONG_PREFIX = 16
"""Tokens. Rows that share this many more than their neighbours do, and fill several packs, get packs of their own:
else the pack in which they meet others would drop their prefix from the cache."""


class Step(NamedTuple):
    """One call of the model: tokens laid one after the other behind ``base`` tokens that are in the cache.

    More cached tokens may lie between, of which each new one sees some only (see :mod:`behind`).
    """

    base: int  # how many of the cached tokens stay; all new tokens see them
    tokens: list[int]  # the new tokens' ids
    positions: list[int]  # each new token's position in its own row
    ends: list[int]  # for each new token the last index of those that continue it: i is seen by i .. ends[i]
    rows: list[tuple[int, list[int]]]  # the rows that are scored here, each with the indices of its scored tokens
    kept: Sequence[int] = ()  # positions of cached tokens after the base that some new tokens see
    paths: Mapping[int, list[int]] = {}  # for new tokens that go on behind kept ones: which they see, as indices

    @property
    def stem(self) -> int:
        """How many new tokens all later ones see."""
        if self.kept:
            return 0
        last = len(self.tokens) - 1
        for i, (position, end) in enumerate(zip(self.positions, self.ends, strict=True)):
            if position != self.base + i or end != last:
                return i
        return last + 1


class Line:
    """New tokens of a call, row after row, each shared beginning once."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.rows: list[tuple[int, list[int]]] = []
        self._path: list[int] = []  # the present row's tokens after its root, as indices

    def add(self, number: int, row: Tokens, start: int, depth: int, root: int) -> None:
        """Add a row.

        Args:
            number: of the row.
            row: its tokens.
            start: the first scored one of them.
            depth: how many of them are in the cache, or are new tokens of the row before.
            root: how many of them are in the cache.
        """
        for index in self._path[depth - root :]:
            self.ends[index] = len(self.tokens) - 1
        del self._path[depth - root :]
        self._path += range(len(self.tokens), len(self.tokens) + len(row) - depth)
        self.tokens += row[depth:]
        self.positions += range(depth, len(row))
        self.ends += [-1] * (len(row) - depth)
        self.rows.append((number, self._path[start - root :]))

    def step(self, base: int, **kept: Any) -> Step:
        """Return the call."""
        for index in self._path:
            self.ends[index] = len(self.tokens) - 1
        return Step(base, self.tokens, self.positions, self.ends, self.rows, **kept)


class Plan:
    """Rows that share prefixes, in families; a family starts with an empty cache.

    Args:
        rows: distinct rows of token ids.
        n_scored: how many tokens at the end of each row are scored.
        max_tokens: tokens that a pack may hold (a row's scored tokens stay together, however many).
        followed: rows behind which others will go on: they are in packs, whether they share anything or not.

    Attributes:
        alone: rows that share nothing, and aren't followed.
        max_tokens: as given.
        families: packs, the family with the longest row first.
        tokens: tokens of these families, each shared prefix counted once.
        saved: tokens that need not be read again (where packs end, some are).
    """

    def __init__(
        self, rows: Sequence[Tokens], n_scored: Sequence[int], max_tokens: int, followed: Collection[int] = ()
    ) -> None:
        order = sorted(range(len(rows)), key=rows.__getitem__)
        shared = [0, *(common(rows[a], rows[b]) for a, b in pairwise(order)), 0]
        # The others lie between families.
        chosen = [k for k in range(len(order)) if max(shared[k : k + 2]) > 0 or order[k] in followed]
        self._order = [order[k] for k in chosen]
        self._followed = followed
        self._rows = [rows[i] for i in self._order]
        self._starts = [len(rows[i]) - n_scored[i] for i in self._order]
        self._shared = [*(shared[k] for k in chosen), 0][: len(chosen) + 1]
        own = (len(row) - n for row, n in zip(self._rows, self._shared, strict=False))
        self._sums = list(accumulate(own, initial=0))
        self._unlike = sorted(set(order).difference(self._order))
        self.tokens = self._sums[-1]
        self.saved = sum(self._shared)
        self._cut(max_tokens)

    def with_packs_of(self, max_tokens: int) -> "Plan":
        """Return the plan for the same rows with packs of another size."""
        plan = copy(self)
        plan._cut(max_tokens)
        return plan

    def _cut(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        families = self._families(self._packs(0, len(self._rows), max_tokens))
        families = [equal for family in families for equal in self._families(self._equal(family))]
        # A single row with nothing before it shares nothing after all.
        single = {self._order[pack[0]] for pack, *more in families if not more and pack[1] - pack[0] == 1}
        single -= set(self._followed)
        self.alone = sorted([*self._unlike, *single])
        families = [family for family in families if self._order[family[0][0]] not in single]
        self.families = sorted(families, key=lambda family: -max(map(len, self._rows[family[0][0] : family[-1][1]])))

    def _equal(self, family: list[Pack]) -> list[Pack]:
        """Cut a family again into as many packs, the largest of them as small as possible (to 1/32)."""
        if len(family) == 1:
            return family
        low, high, best = self.max_tokens // 2, self.max_tokens, family
        for _ in range(4):
            middle = (low + high + 1) // 2
            packs = self._packs(family[0][0], family[-1][1], middle)
            if len(packs) <= len(family):
                high, best = middle, packs
            else:
                low = middle
        return best

    def _size(self, first: int, end: int, depth: int) -> int:
        """Count the different tokens of these rows after their first ``depth``."""
        return len(self._rows[first]) - depth + self._sums[end] - self._sums[first + 1]

    def _packs(self, first: int, end: int, most: int) -> list[Pack]:
        """Cut sorted rows: packs of at most so many tokens, none across the end of a long shared prefix."""
        packs: list[Pack] = []
        is_open = False
        todo: list[tuple[int, int, int] | None] = [(first, end, 0)] if first < end else []
        while todo:
            part = todo.pop()
            if part is None:
                is_open = False
                continue
            first, end, depth = part
            if end - first == 1 or self._size(first, end, depth) <= most:
                if is_open and self._size(packs[-1][0], end, depth) <= most:
                    packs[-1] = (packs[-1][0], end)
                else:
                    packs.append((first, end))
                is_open = True
                continue
            prefix = min(self._shared[first + 1 : end])
            cuts = [first, *(k for k in range(first + 1, end) if self._shared[k] == prefix), end]
            if prefix - depth >= LONG_PREFIX:
                depth, is_open = prefix, False
                todo.append(None)
            todo += [(a, b, depth) for a, b in reversed(list(pairwise(cuts)))]
        return packs

    def _base(self, before: Pack, pack: Pack) -> int:
        """Count the tokens that the pack finds in the cache: those that its rows share with the first row before."""
        return min(*self._shared[before[0] + 1 : pack[1]], *self._starts[slice(*pack)])

    def _families(self, packs: list[Pack]) -> list[list[Pack]]:
        families: list[list[Pack]] = []
        before: Pack | None = None
        for pack in packs:
            if before is None or self._base(before, pack) == 0:
                families.append([])
            families[-1].append(pack)
            before = pack
        return families

    def all_steps(self) -> Iterator[Step]:
        """Yield the calls for all families, one after the other."""
        for family in self.families:
            yield from self.steps(family)

    def steps(self, family: list[Pack]) -> Iterator[Step]:
        """Yield the calls for a family, in the order in which the cache serves them."""
        before: Pack | None = None
        for pack in family:
            first, end = pack
            base = 0 if before is None else self._base(before, pack)
            prefix_end = min([*self._starts[first:end], *self._shared[first + 1 : end]])
            while self._size(first, end, base) > self.max_tokens and base < prefix_end:
                tokens = list(self._rows[first][base : min(prefix_end, base + self.max_tokens)])
                positions = list(range(base, base + len(tokens)))
                yield Step(base, tokens, positions, [len(tokens) - 1] * len(tokens), [])
                base += len(tokens)
            yield self._step(first, end, base)
            before = pack

    def _step(self, first: int, end: int, base: int) -> Step:
        line = Line()
        for k in range(first, end):
            depth = base if k == first else self._shared[k]
            line.add(self._order[k], self._rows[k], self._starts[k], depth, base)
        return line.step(base)


def common(a: Tokens, b: Tokens) -> int:
    """Count the tokens with which both begin."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return int((np.array(a[:n]) != np.array(b[:n])).argmax())
