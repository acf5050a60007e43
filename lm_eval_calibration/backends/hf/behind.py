"""Rows that go on behind those of a call: a query about an answer behind the prompt that was answered.

What they share with a row of that call is in the cache, among tokens of other rows. So each of them sees some of the
cached tokens only: the whole line's beginning, and its own row's tokens after that.
"""

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_calibration.backends.hf.prefixes import Line, Step, Tokens, common


class Next(NamedTuple):
    """A row that goes on behind others."""

    number: int
    tokens: Tokens
    n_scored: int


def steps_behind(
    step: Step, line: Sequence[int], rows: Mapping[int, Tokens], nexts: Sequence[Next], max_tokens: int
) -> Iterator[Step]:
    """Yield calls for the rows that share at least half of one of the step's rows; others have lost their beginning.

    Args:
        step: the last call that made new tokens of whole rows.
        line: positions of all cached tokens, those that fill the call up included.
        rows: of the step, by number.
        nexts: the rows that may go on behind them.
        max_tokens: new tokens that a call may have (one row may have more).
    """
    in_order = sorted((rows[number], scored[-1]) for number, scored in step.rows)
    placed = sorted((found for row in nexts if (found := _placed(row, in_order))), key=lambda found: found.row.tokens)
    part: list[_Placed] = []
    size = 0
    for found in placed:
        known = max(found.depth, common(found.row.tokens, part[-1].row.tokens)) if part else found.depth
        size += len(found.row.tokens) - known
        if part and size > max_tokens:
            yield _step(step, line, part)
            part, size = [], len(found.row.tokens) - found.depth
        part.append(found)
    if part:
        yield _step(step, line, part)


class _Placed(NamedTuple):
    row: Next
    depth: int  # how many of its tokens are cached
    last: int  # the last token of the row behind which it goes on, among the step's


def _placed(row: Next, in_order: list[tuple[Tokens, int]]) -> _Placed | None:
    """Return where a row goes on: its neighbours in order are those that share most with it."""
    at = bisect(in_order, (row.tokens,))
    near = in_order[max(at - 1, 0) : at + 1]
    depth, before, last = max((common(row.tokens, tokens), len(tokens), last) for tokens, last in near)
    depth = min(depth, len(row.tokens) - row.n_scored)
    return _Placed(row, depth, last) if 2 * depth >= before else None


def _step(step: Step, line: Sequence[int], placed: Sequence[_Placed]) -> Step:
    base = min(step.base + step.stem, *(found.depth for found in placed))
    ends = np.array(step.ends)
    new, paths = Line(), {}
    root = 0
    before: Tokens = ()
    for row, depth, last in placed:
        start = len(row.tokens) - row.n_scored
        behind_new = min(common(row.tokens, before), start)
        if behind_new <= max(root, depth):
            own = np.flatnonzero(ends[: last + 1] >= last)  # the row's tokens in the step
            path = [*range(step.base), *(step.base + own).tolist()]
            paths[len(new.tokens)] = [index - base for index in path[base:depth]]
            root = behind_new = depth
        new.add(row.number, row.tokens, start, behind_new, root)
        before = row.tokens
    return new.step(base, kept=line[base:], paths=paths)
