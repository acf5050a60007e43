"""What packs cost, counted for a model of 8 billion weights that isn't there."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import LENGTH, SIZE, build, config, load
from lm_eval.models.huggingface import HFLM
from torch.utils._python_dispatch import TorchDispatchMode

from lm_eval_calibration.backends.hf import cost, forward, sharing, trial
from lm_eval_calibration.backends.hf.layout import Layout
from lm_eval_calibration.backends.hf.packed import PackedForward
from lm_eval_calibration.backends.hf.prefixes import Plan

LLAMA_8B = cost.Model(6_979_584_000, 128256 * 4096, 32, 4096, 128256, 2)

Rows = list[tuple[tuple[int, ...], int]]


def docs(shots: int, n: int = 135, choices: int = 1) -> Rows:
    """Ragged questions behind examples (or a line); choices of one token share a row, longer ones do not."""
    rng = random.Random(0)
    begin = [rng.randrange(10**5) for _ in range(120 * shots or 14)]
    rows: Rows = []
    for _ in range(n):
        question = [*begin, *(rng.randrange(10**5) for _ in range(max(20, int(rng.lognormvariate(3.9, 0.45)))))]
        for _ in range(choices):
            end = [rng.randrange(10**5) for _ in range(rng.randrange(1, 9) * (choices > 1))]
            rows.append(((*question, *end), len(end) + 1))
    return rows


@pytest.mark.parametrize(("shots", "choices"), [(5, 1), (5, 4), (0, 1), (0, 4)])
def test_tokens_attention_and_calls_for_8b(shots: int, choices: int) -> None:
    rows = docs(shots, choices=choices)
    best = sharing.cheapest(LLAMA_8B, cost.H100, rows, batch_size=1)
    assert best is not None
    trie = {row[:i] for row, _ in rows for i in range(1, len(row) + 1)}
    steps = list(best.plan.all_steps())
    on_trial = trial.size_of(best.plan.tokens).tokens
    assert on_trial <= 0.05 * len(trie)
    read = sum(cost.padded(len(step.tokens), cost.H100) for step in steps)
    assert read + on_trial < 1.1 * len(trie)
    attended = sum(Layout(step, torch.device("cpu")).attended() for step in steps)
    assert attended < 1.5 * sum(map(len, trie))
    assert len(steps) <= -(-len(trie) // 2048) + 2
    assert len({cost.padded(len(step.tokens), cost.H100) for step in steps}) <= 5
    assert best.shared < best.plain


@pytest.mark.parametrize(
    ("shots", "choices", "most_shapes", "before"), [(5, 1, 6, 23), (5, 4, 16, 65), (0, 1, 6, 23), (0, 4, 15, 63)]
)
def test_packs_have_few_shapes_of_attention_on_an_accelerator(
    shots: int, choices: int, most_shapes: int, before: int
) -> None:
    """As many as without rounding on the CPU, ``before``, would be new plans and new compilations."""
    best = sharing.cheapest(LLAMA_8B, cost.H100, docs(shots, choices=choices), batch_size=1)
    assert best is not None
    shapes, attended, blocks = {}, {}, {}
    for device in ("cpu", "meta"):
        layouts = [Layout(step, torch.device(device)) for step in best.plan.all_steps()]
        shapes[device] = len({block.shape for layout in layouts for block in layout.blocks})
        blocks[device] = sum(len(layout.blocks) for layout in layouts)
        attended[device] = sum(layout.attended() for layout in layouts)
    assert shapes["cpu"] == before
    assert shapes["meta"] <= most_shapes
    assert blocks["meta"] < 0.7 * blocks["cpu"]
    calls = list(sharing.shared_calls(best.plan, cost.H100))
    more = cost.Call(0, attended["meta"] - attended["cpu"], 0)
    seconds = cost.sum_of_parts(LLAMA_8B, cost.H100, calls).arithmetic
    assert cost.parts(LLAMA_8B, cost.H100, more).arithmetic < 0.01 * seconds


@pytest.mark.parametrize("device", [cost.CPU, cost.H100])
def test_sharing_that_saves_little_is_used(device: cost.Device) -> None:
    rows = [((7, 7, 7, *range(100 * i, 100 * i + 80)), 1) for i in range(1, 100)]
    best = sharing.cheapest(LLAMA_8B, device, rows, batch_size=8)
    assert best is not None
    assert best.plan.alone == []
    assert best.shared < best.plain


def test_the_estimate_for_five_shots_on_an_h100() -> None:
    rows = docs(5)
    best = sharing.cheapest(LLAMA_8B, cost.H100, rows, batch_size=8)
    stock = cost.seconds(LLAMA_8B, cost.H100, cost.stock_calls([len(row) for row, _ in rows], 8))
    assert best is not None
    least = 2 * LLAMA_8B.layer_weights * best.plan.tokens / cost.H100.operations
    assert least < best.shared < 1.06 * least < 0.2 * stock


def test_parts_and_seconds_by_hand() -> None:
    model = cost.Model(100, 30, layers=2, width=8, vocab_size=10, itemsize=4)
    device = cost.Device("x", 1000.0, 1000.0, 0.001, 128, 512, 10**6)
    call = cost.Call(tokens=10, attended=55, logits=3, launches=9)
    by_hand = [2 * 100 * 10, 4 * 2 * 8 * 55, 2 * 30 * 3, 130 * 4, 2 * 9]
    assert [*cost.parts(model, device, call)] == pytest.approx([n / 1000 for n in by_hand])
    assert cost.parts(model, device, call).arithmetic == pytest.approx(sum(by_hand[:3]) / 1000)
    assert [*cost.sum_of_parts(model, device, [call, call])] == pytest.approx([2 * n / 1000 for n in by_hand])
    assert cost.seconds(model, device, [call]) == pytest.approx(sum(by_hand[:3]) / 1000)
    assert cost.seconds(model, device, [cost.Call(0, 0, 0)] * 2) == pytest.approx(2 * 130 * 4 / 1000)  # its weights
    fast = device._replace(bandwidth=1e9)
    assert cost.seconds(model, fast, [cost.Call(0, 0, 0)]) == pytest.approx(2 * cost.PLAIN_LAUNCHES * 0.001)
    assert [cost.padded(n, device) for n in (1, 128, 129)] == [128, 128, 256]
    assert cost.fits(model, device, [call])  # 3 x 10 x 4 bytes
    assert cost.fits(model, device._replace(most_logits=120), [call, call])
    assert not cost.fits(model, device._replace(most_logits=119), [cost.Call(0, 0, 0), call])
    assert [*cost.plain_calls([3, 5, 4], [1, 2, 3], 2)] == [cost.Call(10, 25, 5), cost.Call(3, 4.5, 1)]
    assert [*cost.stock_calls([3, 5, 4], 2)] == [cost.Call(10, 25, 10), cost.Call(3, 4.5, 3)]


def launched(layers: int, call: Callable[[HFLM], Any], tokenizer: Any) -> int:
    """Count the operations of a call of a Llama; views launch nothing."""

    class Launches(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            self.n += not function.is_view and function.overloadpacket is not torch.ops.aten._unsafe_view
            return function(*arguments, **(options or {}))

    shape = {**SIZE, **LENGTH, "num_key_value_heads": 2, "num_hidden_layers": layers}
    lm = load(build(config("LlamaConfig", **shape)), tokenizer)
    with Launches() as launches:
        call(lm)
    return launches.n


def test_a_layer_launches_as_many_operations_as_are_reckoned_with(byte_tokenizer: Any) -> None:
    rng = random.Random(1)
    begin = [rng.randrange(258) for _ in range(60)]
    rows = [(*begin, *(rng.randrange(258) for _ in range(rng.randrange(10, 60)))) for _ in range(40)]
    steps = list(Plan(rows, [1] * len(rows), 1000).all_steps())

    def plain(lm: HFLM) -> None:
        forward.Forward(lm, [])([forward.Row(row, (), 1) for row in rows[:4]])

    def packs(lm: HFLM) -> None:
        pack = PackedForward(lm, "apart", fills=False)
        for step in steps:
            pack(step, [0])

    of_layer = [launched(3, call, byte_tokenizer) - launched(2, call, byte_tokenizer) for call in (plain, packs)]
    assert of_layer[0] == cost.PLAIN_LAUNCHES
    assert of_layer[1] / len(steps) == pytest.approx(cost.PACK_LAUNCHES, abs=4)  # as blocks are few or many


@pytest.mark.parametrize("tied", [True, False])
def test_what_counts_of_a_model(tied: bool) -> None:
    import transformers

    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 500}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": tied}
    with torch.device("meta"):  # no memory for the weights
        model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**shape))
    found = cost.model_of(model, model.config)
    layers = 3 * (64 * 96 * 2 + 64 * 48 * 2 + 3 * 64 * 96 + 2 * 64) + 64
    assert found == cost.Model(layers, 500 * 64, 3, 96, 500, 4)
    assert cost.model_of(model, SimpleNamespace()).layers == 1
