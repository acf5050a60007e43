"""Attention in parts against its definition: one softmax over the keys that a token sees."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lm_eval_calibration.backends.hf import attention, cost
from lm_eval_calibration.backends.hf.attention import NAME, apart, attend, by_definition, merged
from lm_eval_calibration.backends.hf.layout import Layout, additive
from lm_eval_calibration.backends.hf.prefixes import Plan, Step

CPU = torch.device("cpu")


def rows_of(kind: str, seed: int = 1) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    begin = tuple(rng.randrange(99) for _ in range(20))
    if kind == "questions":
        return [(*begin, i, *(rng.randrange(99) for _ in range(rng.randrange(1, 30)))) for i in range(12)]
    if kind == "choices":
        questions = rows_of("questions", seed)
        return [(*row, 100 + i, *range(rng.randrange(4))) for row in questions for i in range(3)]
    if kind == "growing":
        return [begin[:n] for n in range(2, 20)]
    return list({tuple(rng.randrange(2) for _ in range(rng.randrange(1, 60))) for _ in range(60)})  # nested deeply


def steps_of(kind: str, most: int) -> list[Step]:
    rows = rows_of(kind)
    return list(Plan(rows, [1] * len(rows), most).all_steps())


def naive(step: Step, tensors: Any, *, window: int | None, sink: Any, softcap: float | None) -> torch.Tensor:
    """One token and head after the other, in float64."""
    q, k, v = tensors
    positions = [*range(step.base), *step.positions]
    out = torch.zeros(1, len(step.tokens), q.shape[1], v.shape[-1], dtype=torch.float64)
    groups = q.shape[1] // k.shape[1]
    for i in range(len(step.tokens)):
        seen = [*range(step.base), *(step.base + j for j in range(i + 1) if i <= step.ends[j])]
        seen = [j for j in seen if window is None or step.positions[i] - positions[j] < window]
        for head in range(q.shape[1]):
            scores = k[0, head // groups, seen].double() @ q[0, head, i].double() * 0.3
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            extra = [] if sink is None else [sink[head : head + 1].double()]
            weights = torch.cat([scores, *extra]).softmax(0)[: len(seen)]
            out[0, i, head] = weights @ v[0, head // groups, seen].double()
    return out


@pytest.fixture(params=[1, 128])
def _shapes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that likes few shapes, and one that doesn't care."""
    monkeypatch.setattr(cost, "CPU", cost.CPU._replace(multiple=request.param))


@pytest.mark.usefixtures("_shapes")
@pytest.mark.parametrize("most", [25, 1000])
@pytest.mark.parametrize("kind", ["questions", "choices", "growing", "nested"])
@pytest.mark.parametrize(
    ("window", "has_sink", "softcap"), [(None, False, None), (9, False, None), (1, True, None), (30, False, 2.0)]
)
def test_parts_equal_the_definition(
    kind: str, most: int, window: int | None, has_sink: bool, softcap: float | None
) -> None:
    torch.manual_seed(0)
    module = SimpleNamespace(layer_idx=0)
    sink = torch.randn(4) if has_sink else None
    for step in steps_of(kind, most)[:6]:
        n = len(step.tokens)
        q = torch.randn(1, 4, n + 3, 8)  # filled up by three
        k, v = torch.randn(2, 1, 2, step.base + n + 3, 8)
        config = SimpleNamespace(_attn_implementation="sdpa", sliding_window=window)
        with apart(config, step):
            assert config._attn_implementation == NAME
            options = {"scaling": 0.3, "sliding_window": window, "s_aux": sink, "softcap": softcap}
            out, _ = attention.attention(module, q, k, v, None, **options)
        assert out.shape == (1, n + 3, 4, 8)
        expected = naive(step, (q, k, v), window=window, sink=sink, softcap=softcap)
        torch.testing.assert_close(out[:, :n].double(), expected, rtol=1e-5, atol=1e-5)
        assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_device_s_kernel_equals_the_definition(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 7, 8).to(dtype), torch.randn(3, 2, 7, 8).to(dtype), torch.randn(3, 2, 7, 8).to(dtype)
    tolerance = 16 * torch.finfo(dtype).eps
    some = (torch.rand(3, 1, 7, 7) < 0.7) | torch.eye(7, dtype=torch.bool)
    for sees, causal in ((None, False), (None, True), (some, False)):
        mask = None if sees is None else additive(sees, dtype)
        ours = attend(q, k, v, mask, causal=causal, scale=0.3)
        for a, b in zip(ours, by_definition(q, k, v, mask, causal=causal, scale=0.3), strict=True):
            torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_shapes_of_cuda_s_kernel(dtype: torch.dtype) -> None:
    """No CUDA is needed for these, and no number comes out."""
    with torch._subclasses.FakeTensorMode():
        q, k = (torch.empty(1, heads, 5, 64, device="cuda", dtype=dtype) for heads in (8, 2))
        for causal in (False, True):
            out, log_sum = attend(q, k, k, causal=causal, scale=0.1)
            assert (out.shape, out.dtype) == (q.shape, dtype)
            assert (log_sum.shape, log_sum.dtype) == (q.shape[:3], torch.float32)


def test_a_part_that_a_query_can_t_see_counts_nothing() -> None:
    q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 4, 8)
    nothing = attend(q, k, k, additive(torch.zeros(1, 1, 3, 4, dtype=torch.bool), q.dtype), scale=1.0)
    something = attend(q, k, k, scale=1.0)
    for a, b in zip(merged(nothing, something), something, strict=True):
        torch.testing.assert_close(a, b)


def test_code_and_configuration_must_agree_on_the_window() -> None:
    (step,) = steps_of("questions", 1000)
    q = torch.randn(1, 1, len(step.tokens), 8)
    config = SimpleNamespace(_attn_implementation="sdpa", sliding_window=9)
    with pytest.raises(ValueError, match="window is 8 where its configuration says 9"), apart(config, step):
        attention.attention(SimpleNamespace(layer_idx=0), q, q, q, None, sliding_window=8)
    assert config._attn_implementation == "sdpa"


def test_a_model_that_asks_for_no_attention_by_name_is_told_of() -> None:
    (step,) = steps_of("questions", 1000)
    with pytest.raises(TypeError, match="can't be chosen"), apart(SimpleNamespace(_attn_implementation="sdpa"), step):
        pass


@pytest.mark.parametrize("kind", ["questions", "choices"])
def test_little_is_compared_in_vain(kind: str) -> None:
    for step in steps_of(kind, 1000):
        needed = sum(step.positions) + len(step.positions)
        dense = len(step.tokens) * (step.base + len(step.tokens))
        assert needed <= Layout(step, CPU).attended() < 0.6 * dense


def test_branches_of_branches_do_not_gather_without_end() -> None:
    rows = [(*range(i), 10**6 + i) for i in range(1, 300)]
    for step in Plan(rows, [1] * len(rows), 1000).all_steps():
        keys = sum(sum(map(len, block.keys)) for block in Layout(step, CPU).blocks)
        assert keys <= 32 * len(step.tokens)


def launches(window: int | None) -> list[Counter[str]]:
    """Operations of the attention of a pack's first and second layer, by name."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _: Any, arguments: Any = (), options: Any = None) -> Any:
            found[-1][function.overloadpacket.__name__] += 1
            return function(*arguments, **(options or {}))

    step = steps_of("choices", 1000)[-1]
    q, k = torch.randn(1, 4, len(step.tokens), 8), torch.randn(1, 2, step.base + len(step.tokens), 8)
    found: list[Counter[str]] = []
    with apart(SimpleNamespace(_attn_implementation="sdpa", sliding_window=window), step):
        for layer in range(2):
            found.append(Counter())
            with Operations():
                attention.attention(SimpleNamespace(layer_idx=layer), q, k, k, None, sliding_window=window)
    return found


@pytest.mark.parametrize("window", [None, 9])
def test_layers_share_what_their_attention_has_in_common(window: int | None) -> None:
    """Each operation is a launch: on a device, layers of small models wait for these."""
    first, second = launches(window)
    made = {"zeros", "masked_fill_", "index", "bitwise_not", "lt"}
    assert made & set(first)
    assert not made & set(second)
    assert second["index_select"] == 5  # queries, keys, values; their order afterwards, and that of log-sum-exps
