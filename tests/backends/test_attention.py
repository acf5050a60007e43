"""Attention in parts is attention over all that a mask shows, and the plan's cost is what it reads."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lm_eval_calibration.backends.hf import attention, cost, sharing, trial
from lm_eval_calibration.backends.hf.layout import Layout
from lm_eval_calibration.backends.hf.prefixes import Plan, Step

CPU = torch.device("cpu")


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor, **how: Any) -> torch.Tensor:
    """Attention of each query by itself, in float64, by its definition."""
    out = torch.zeros(query.shape, dtype=torch.float64)
    groups = query.shape[1] // key.shape[1]
    for head in range(query.shape[1]):
        for i in range(query.shape[2]):
            keys = key[0, head // groups, sees[i]].double()
            scores = keys @ query[0, head, i].double() * how["scale"]
            if how.get("softcap"):
                scores = how["softcap"] * torch.tanh(scores / how["softcap"])
            weights = torch.exp(scores - scores.max())
            out[0, head, i] = (weights / weights.sum()) @ value[0, head // groups, sees[i]].double()
    return out


def rows_of(seed: int) -> list[tuple[int, ...]]:
    """Ragged rows that share examples, questions, beginnings of choices, or nothing."""
    rng = random.Random(seed)
    examples = tuple(rng.randrange(9) for _ in range(rng.randrange(1, 40)))
    rows = set()
    for _ in range(rng.randrange(2, 6)):
        question = (*examples[: rng.randrange(1, len(examples) + 1)], *(rng.randrange(9) for _ in range(9)))
        rows |= {(*question, *(rng.randrange(9) for _ in range(rng.randrange(1, 5)))) for _ in range(4)}
    return sorted(rows)


def visible(step: Step, window: int | None) -> torch.Tensor:
    """Which keys, [new, base + new], each token sees: those of its own row, as far as the window reaches."""
    n, positions = len(step.tokens), [*range(step.base), *step.positions]
    sees = torch.zeros(n, step.base + n, dtype=torch.bool)
    for i in range(n):
        for j in range(step.base + i + 1):
            is_own = j < step.base or step.ends[j - step.base] >= i
            sees[i, j] = is_own and (window is None or step.positions[i] - positions[j] < window)
    return sees


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "how", [{}, {"window": 7}, {"softcap": 3.0}, {"heads": (4, 2)}, {"window": 7, "heads": (4, 1)}]
)
def test_a_pack_s_attention_is_that_of_each_row_alone(seed: int, how: dict[str, Any]) -> None:
    torch.manual_seed(seed)
    heads, window = how.get("heads", (2, 2)), how.get("window")
    rows = rows_of(seed)
    for most in (20, 1000):
        for step in Plan(rows, [1] * len(rows), most).all_steps():
            n = len(step.tokens)
            query = torch.randn(1, heads[0], n, 8)
            key, value = torch.randn(2, 1, heads[1], step.base + n, 8)
            config = SimpleNamespace(_attn_implementation="sdpa", sliding_window=window)
            with attention.apart(config, step):
                module = SimpleNamespace(layer_idx=0)
                ours, _ = attention.attention(
                    module, query, key, value, None, sliding_window=window, softcap=how.get("softcap")
                )
            expected = naive(query, key, value, visible(step, window), scale=8**-0.5, softcap=how.get("softcap"))
            np.testing.assert_allclose(ours.transpose(1, 2), expected, atol=2e-6)
            assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_device_s_kernel_and_the_definition_agree(softcap: float | None) -> None:
    torch.manual_seed(0)
    query, (key, value) = torch.randn(3, 4, 5, 8), torch.randn(2, 3, 2, 5, 8)
    for causal in (False, True):
        ours = attention.attend(query, key, value, causal=causal, scale=0.3, softcap=softcap)
        definition = attention.by_definition(query, key, value, causal=causal, scale=0.3, softcap=softcap)
        for one, other in zip(ours, definition, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_parts_merge_to_the_whole_whatever_their_sizes() -> None:
    torch.manual_seed(1)
    query, (key, value) = 3 * torch.randn(1, 2, 4, 8), torch.randn(2, 1, 2, 30, 8)
    whole = attention.by_definition(query, key, value, scale=1.0)
    for cut in (1, 15, 29):
        parts = (attention.by_definition(query, k, v, scale=1.0) for k, v in
                 ((key[:, :, :cut], value[:, :, :cut]), (key[:, :, cut:], value[:, :, cut:])))  # fmt: skip
        for one, other in zip(attention.merged(*parts), whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_model_that_asks_for_no_attention_or_for_more_is_refused() -> None:
    step = Step(0, [1, 2], [0, 1], [1, 1], [(0, [1])])
    config = SimpleNamespace(_attn_implementation="eager", sliding_window=None)
    with pytest.raises(TypeError, match="can't be chosen"), attention.apart(config, step):
        pass
    assert config._attn_implementation == "eager"
    query = torch.zeros(1, 1, 2, 8)
    for more in ({"attention_mask": query}, {"position_bias": query}):
        arguments = {"attention_mask": None, **more}
        with pytest.raises(TypeError, match="needs more than"), attention.apart(config, step):
            attention.attention(None, query, query, query, **arguments)


LLAMA_8B = cost.Model(6_979_588_096, 525_336_576, 32, 4096, 128_256, 2)
"""Llama 3 8B by its published shape: 32 layers of 4096 x 14336, 8 key heads, an output layer of 128,256."""


def few_shot(docs: int, shots: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Questions of 20 to 100 tokens behind examples of 100; the last token tells of their letters."""
    rng = random.Random(0)
    examples = tuple(rng.randrange(1000) for _ in range(20 + 100 * shots))
    rows = {(*examples, *(rng.randrange(1000) for _ in range(rng.randrange(20, 100)))) for _ in range(docs)}
    return sorted(rows), [1] * len(rows)


def test_of_an_8b_model_tokens_and_attention_are_near_what_is_needed() -> None:
    rows, n_scored = few_shot(135, 5)
    found = sharing.cheapest(LLAMA_8B, cost.H100, rows, n_scored, 8)
    assert found is not None
    nodes = {row[:n] for row in rows for n in range(1, len(row) + 1)}
    steps = list(found.plan.all_steps())
    read = sum(cost.padded(len(step.tokens), cost.H100) for step in steps)
    assert found.plan.alone == []
    assert read + trial.tokens_of(trial.part_of(read)) < 1.1 * len(nodes)
    needed = sum(map(len, nodes))  # each sees itself and what is before it
    assert sum(Layout(step, CPU).attended() for step in steps) < 1.5 * needed
    assert found.shared < 0.2 * found.plain


def test_what_saves_anything_is_shared_where_operations_are_all_that_counts() -> None:
    rows, n_scored = few_shot(16, 0)
    free = cost.CPU._replace(launch=0.0, bandwidth=float("inf"))
    found = sharing.cheapest(LLAMA_8B, free, rows, n_scored, 1)
    assert found is not None
    assert found.shared < found.plain
    unlike = [(i, *row) for i, row in enumerate(rows)]
    assert sharing.cheapest(LLAMA_8B, free, unlike, n_scored, 1) is None


def test_a_call_costs_its_operations_or_its_weights_or_its_launches() -> None:
    model = cost.Model(100, 50, 2, 8, 25, 4)
    call = cost.Call(tokens=10, attended=55, logits=3)
    assert cost.operations(model, call) == 2 * (100 * 10 + 50 * 3) + 4 * 2 * 8 * 55
    device = cost.CPU._replace(operations=1e3, bandwidth=1e9, launch=0.0)
    assert cost.seconds(model, device, [call]) == pytest.approx(cost.operations(model, call) / 1e3)
    assert cost.seconds(model, device._replace(bandwidth=1.0), [call]) == pytest.approx(150 * 4)
    assert cost.seconds(model, device._replace(launch=50.0), [call, call]) == pytest.approx(200)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_is_looked_up_not_read(tied: bool) -> None:
    import transformers

    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=500, tie_word_embeddings=tied, **shape)
    with torch.device("meta"):
        found = cost.model_of(transformers.AutoModelForCausalLM.from_config(config), config)
    layer = 4 * 64 * 64 + 3 * 64 * 96 + 2 * 64  # projections, the block, two norms
    assert found == cost.Model(2 * layer + 64, 500 * 64, 2, 64, 500, 4)
