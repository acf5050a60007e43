"""Rows that go on behind those of a call: each token sees its own row's beginning, wherever that lies in the cache."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lm_eval_calibration.backends.hf import attention, cost
from lm_eval_calibration.backends.hf.attention import apart
from lm_eval_calibration.backends.hf.behind import Next, steps_behind
from lm_eval_calibration.backends.hf.layout import Layout, visible
from lm_eval_calibration.backends.hf.prefixes import Plan, Step

CPU = torch.device("cpu")
Tokens = tuple[int, ...]


def questions(seed: int, n: int = 9) -> list[Tokens]:
    rng = random.Random(seed)
    begin = tuple(rng.randrange(50) for _ in range(seed % 3 * 7))
    return list(dict.fromkeys((*begin, *(rng.randrange(50) for _ in range(rng.randrange(2, 30)))) for _ in range(n)))


def queries(rows: list[Tokens], seed: int) -> list[tuple[Tokens, int]]:
    """Behind each row a query, and one that goes on behind it; one that leaves its row before the end."""
    rng = random.Random(seed)
    found = []
    for row in rows:
        own = (*row[: len(row) - rng.randrange(2)], 60, *(rng.randrange(50) for _ in range(rng.randrange(1, 9))))
        found += [(own, 1), ((*own, 70), rng.randrange(1, 3))]
    return found


def all_calls(seed: int, most: int, filling: int = 0) -> Any:
    """Each step that makes rows, with the cache behind it; then what goes on behind it, and these rows."""
    rows = questions(seed)
    plan = Plan(rows, [1] * len(rows), most, range(len(rows)))
    line: list[tuple[Tokens, int]] = []  # of each cached token: the beginning of its row, itself included
    for step in plan.all_steps():
        line = laid(line[: step.base], step)
        if not step.rows:
            continue
        own = {number: rows[number] for number, _ in step.rows}
        wanted = queries(list(own.values()), seed)
        nexts = [Next(100 + i, *query) for i, query in enumerate(wanted)]
        cached = [*line, *[((-1,), step.positions[-1])] * filling]
        positions = [position for _, position in cached]
        yield step, cached, dict(enumerate(wanted, 100)), list(steps_behind(step, positions, own, nexts, most))


def laid(cached: list[tuple[Tokens, int]], step: Step) -> list[tuple[Tokens, int]]:
    """The cache after a step without kept tokens, by the rule that a token's beginning is the last one before it."""
    base = cached[-1][0] if cached else ()
    line = list(cached)
    for i, (token, position) in enumerate(zip(step.tokens, step.positions, strict=True)):
        before = [j for j in range(i) if step.ends[j] >= i]
        line.append(((*base, *(step.tokens[j] for j in before), token), position))
        assert len(line[-1][0]) == position + 1
    return line


@pytest.mark.parametrize("most", [20, 60, 10**6])
@pytest.mark.parametrize("seed", range(6))
def test_each_token_sees_its_row_s_beginning_and_nothing_else(seed: int, most: int) -> None:
    n_steps = 0
    for _, cached, wanted, steps in all_calls(seed, most, filling=seed % 2 * 3):
        scored: dict[int, Tokens] = {}
        for step in steps:
            n_steps += 1
            assert list(step.kept) == [position for _, position in cached[step.base :]]
            keys = [*(beginning[-1] for beginning, _ in cached[step.base :]), *step.tokens]
            base = tuple(beginning[-1] for beginning, _ in cached[: step.base])
            sees = visible(step, CPU)
            beginnings = [(*base, *(keys[j] for j in sees[i].nonzero().flatten())) for i in range(len(step.tokens))]
            assert [len(beginning) - 1 for beginning in beginnings] == step.positions
            for number, columns in step.rows:
                tokens, n_scored = wanted[number]
                starts = range(len(tokens) - n_scored + 1, len(tokens) + 1)
                assert [beginnings[column] for column in columns] == [tokens[:n] for n in starts]
                scored[number] = tokens
        assert scored.keys() == wanted.keys()
    assert n_steps


def test_calls_hold_at_most_the_tokens_they_may() -> None:
    for _, _, _, steps in all_calls(4, 60):
        assert all(len(step.tokens) <= 60 for step in steps)


def test_tokens_that_rows_share_are_read_once() -> None:
    rows = [(1, 2, 3, 4), (1, 2, 5, 6)]
    (first,) = Plan(rows, [1, 1], 100).all_steps()
    wanted = [Next(7, (1, 2, 3, 4, 8, 9), 1), Next(8, (1, 2, 3, 4, 8, 9, 9), 1), Next(9, (1, 2, 5, 6, 8), 1)]
    (step,) = steps_behind(first, [0, 1, 2, 3, 2, 3], dict(enumerate(rows)), wanted, 100)
    assert (step.base, list(step.kept), step.tokens, step.positions) == (2, [2, 3, 2, 3], [8, 9, 9, 8], [4, 5, 6, 4])
    assert step.paths == {0: [0, 1], 3: [2, 3]}
    assert step.rows == [(7, [1]), (8, [2]), (9, [3])]


def test_a_row_that_lost_its_beginning_is_left() -> None:
    rows = [(1, 2, 3, 4), (1, 2, 5, 6)]
    (first,) = Plan(rows, [1, 1], 100).all_steps()
    cut = Next(7, (2, 3, 4, 8, 9), 1)
    assert list(steps_behind(first, [0, 1, 2, 3, 2, 3], dict(enumerate(rows)), [cut], 100)) == []


def test_a_followed_row_is_in_a_pack_though_it_shares_nothing() -> None:
    rows = [(1, 2), (3, 4), (5, 6)]
    assert Plan(rows, [1] * 3, 100).alone == [0, 1, 2]
    assert Plan(rows, [1] * 3, 100, {1}).alone == [0, 2]
    (step,) = Plan(rows, [1] * 3, 100, {0, 1, 2}).all_steps()
    assert step.tokens == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("multiple", [1, 128])
@pytest.mark.parametrize("gathers", [True, False])
def test_attention_in_parts_is_that_of_the_mask(
    window: int | None, gathers: bool, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "CPU", cost.CPU._replace(multiple=multiple))  # a device that likes few shapes
    if not gathers:
        monkeypatch.setattr("lm_eval_calibration.backends.hf.layout._MOST_KEYS", 0)
    torch.manual_seed(0)
    for seed in range(4):
        for _, cached, _, steps in all_calls(seed, 80):
            for step in steps:
                n, all_keys = len(step.tokens), len(cached) + len(step.tokens)
                assert all(len(block.keys) == 1 for block in Layout(step, CPU).blocks) or gathers
                q = torch.randn(1, 4, n + 2, 8)
                k, v = torch.randn(2, 1, 2, all_keys + 2, 8)
                config = SimpleNamespace(_attn_implementation="sdpa", sliding_window=window)
                with apart(config, step):
                    out, _ = attention.attention(
                        SimpleNamespace(layer_idx=0), q, k, v, None, scaling=0.3, sliding_window=window
                    )
                sees = torch.cat([torch.ones(n, step.base, dtype=torch.bool), visible(step, CPU)], dim=1)
                seen = torch.tensor([*range(step.base), *step.kept, *step.positions])
                if window:
                    sees &= torch.tensor(step.positions)[:, None] - seen < window
                expected = torch.nn.functional.scaled_dot_product_attention(
                    *(q[:, :, :n], k[:, :, :all_keys], v[:, :, :all_keys]), sees, scale=0.3, enable_gqa=True
                )
                torch.testing.assert_close(out[:, :n].transpose(1, 2), expected, rtol=1e-5, atol=1e-5)
