"""Every path on a device that isn't there: the CPU's numbers, no operation on two devices, few waits."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from simulated_device import FIRST, SECOND, Elsewhere, MixedDevicesError, Simulation, on_device, over_both, simulated
from tiny import generation_requests, make_config, make_gpt2, make_rows, run_tasks, scoring_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends.hf import corpus, cost, log_likelihood, packed, transfer
from lm_eval_calibration.tasks import CalibratedTask


def test_operations_on_two_devices_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated(monkeypatch):
        here, there = torch.arange(3, device=FIRST), torch.ones(3, device=SECOND)
        assert isinstance(here, Elsewhere)
        assert (here + 1).cpu().tolist() == [1, 2, 3]
        for operation in (lambda: here + there, lambda: here + torch.ones(3), lambda: torch.cat([here, here.cpu()])):
            with pytest.raises(MixedDevicesError):
                operation()
        assert (here.to(SECOND) + there).device == SECOND


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.cpu(),
        lambda x: x.sum().item(),
        lambda x: bool((x > 1).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: torch.zeros(3, dtype=torch.long).copy_(x),
    ],
)
def test_what_the_host_waits_for_is_counted(wait: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated(monkeypatch) as simulation:
        x = torch.arange(3, device=FIRST)
        (x * 2 + x[torch.zeros(2, dtype=torch.long, device=FIRST)].sum()).view(3, 1)
        assert simulation.waits == []
        wait(x)
    assert len(simulation.waits) == 1


def test_uploads_that_are_waited_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated(monkeypatch) as simulation:
        torch.ones(2).pin_memory().to(FIRST, non_blocking=True)
        assert simulation.pageable == []
        torch.ones(2).to(FIRST)
        torch.tensor([1, 2, 3], device=FIRST)
        torch.ones(4).to(FIRST, non_blocking=True)
    assert simulation.pageable == [(2,), (3,), (4,)]


def texts(n: int = 5) -> list[str]:
    return [f"{subject} and again {subject}: {i}" for subject in ("art", "biology") for i in range(n)]


def batches_of(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """Count the batches of a path: calls of what fetches their results."""
    calls: list[int] = []
    fetch = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *tensors: calls.append(1) or fetch(*tensors))
    return calls


@pytest.fixture
def lm(byte_tokenizer: Any) -> HFLM:
    return HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, device="cpu", batch_size=4)


@pytest.mark.parametrize("temperatures", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_scores_are_the_cpu_s_in_one_transfer_a_batch(
    shared: bool, temperatures: bool, lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = scoring_requests(texts(), (" A", " B", " C", " more"), shared_prefixes=shared, temperatures=temperatures)
    expected = scoring.token_scores(lm, requests)
    with simulated(monkeypatch) as simulation:
        batches = batches_of(monkeypatch, log_likelihood, "Fetch")
        found = scoring.token_scores(on_device(lm), requests)
    assert {scores.certificate["shared_prefixes"] for scores in found} == {shared}
    for ours, cpu in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.log_probs, cpu.log_probs, atol=1e-5)
        assert ours[1] == cpu[1]
        for mine, its in zip(ours.large_probs, cpu.large_probs, strict=True):
            np.testing.assert_allclose(np.sort(mine)[::-1][: len(its)], np.sort(its)[::-1], atol=1e-5)
        if temperatures:
            np.testing.assert_allclose(ours.temperatures.log_probs, cpu.temperatures.log_probs, atol=1e-4)
    n_trials = 2 + 2 * shared  # of what can be spared, and of a pack
    assert len(simulation.waits) == len(batches) + n_trials
    assert len(batches) == (1 if shared else -(-(len(texts()) * 2) // 4))
    assert simulation.pageable == []


def test_a_corpus_is_the_cpu_s_in_one_transfer_a_batch(lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Instance("loglikelihood_rolling", {}, ("x y" * n,), 0, metadata=("t", n, 1)) for n in (200, 3, 100)]
    for request in requests:
        request.n_bins = 10
    expected = scoring.corpus_scores(lm, requests)
    monkeypatch.setitem(corpus._CHUNK_ELEMENTS, "accelerator", 100 * len(lm.tokenizer))
    with simulated(monkeypatch) as simulation:
        batches = batches_of(monkeypatch, corpus, "Fetch")
        on_device(lm)
        found = scoring.corpus_scores(lm, requests)
    assert found == pytest.approx(expected, rel=1e-5)
    for ours, cpu in zip(found, expected, strict=True):
        for one, other in zip(ours.sums, cpu.sums, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
    n_trials = 2 + 2  # of what can be spared, and of chunks
    assert (len(simulation.waits), len(batches)) == (2 + n_trials, 2)  # six windows, four a batch
    assert simulation.pageable == []


def test_texts_are_the_cpu_s_in_one_transfer_a_batch(lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    expected = scoring.generated_texts(lm, generation_requests(texts(), settings))
    with simulated(monkeypatch) as simulation:
        on_device(lm)
        lm.generate_until(generation_requests(texts(), settings), disable_tqdm=True)
        stock = len(simulation.waits)
        found = scoring.generated_texts(lm, generation_requests(texts(), settings))
    assert list(map(str, found)) == list(map(str, expected))
    for ours, cpu in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.token_log_probs, cpu.token_log_probs, atol=1e-5)
    assert len(simulation.waits) - stock == stock + 3  # once for each of three batches


@pytest.mark.parametrize("returns_to_the_first", [True, False])
def test_a_model_over_two_devices_gives_the_cpu_s_numbers(
    returns_to_the_first: bool, lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False}
    corpora = [Instance("loglikelihood_rolling", {}, ("x y" * 100,), 0, metadata=("t", 0, 1))]
    corpora[0].n_bins = 10

    def run(shared: bool) -> Any:
        requests = scoring_requests(texts(), (" A", " more"), shared_prefixes=shared, temperatures=True)
        return scoring.token_scores(lm, requests)

    def write() -> Any:
        return scoring.generated_texts(lm, generation_requests(texts(2), settings))

    expected = [run(True), run(False), scoring.corpus_scores(lm, corpora), write()]
    with simulated(monkeypatch):
        over_both(lm, returns_to_the_first=returns_to_the_first)
        found = [run(True), run(False), scoring.corpus_scores(lm, corpora), write()]
    for shared, ours, cpu in zip((True, False), found, expected, strict=False):
        assert {scores.certificate["shared_prefixes"] for scores in ours} == {shared}
        assert [scores[0] for scores in ours] == pytest.approx([scores[0] for scores in cpu], abs=1e-4)
    assert found[2] == pytest.approx(expected[2], rel=1e-5)
    assert list(map(str, found[3])) == list(map(str, expected[3]))
    for ours, cpu in zip(found[3], expected[3], strict=True):
        np.testing.assert_allclose(ours.token_log_probs, cpu.token_log_probs, atol=1e-5)


def order_of(lm: HFLM, simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the host does from now on: it launches calls, sends for their results, waits for these."""
    found: list[str] = []
    call = type(lm.model).forward

    def forward(*arguments: Any, **options: Any) -> Any:
        found.append("launch")
        return call(lm.model, *arguments, **options)

    class Watched(transfer.Fetch):
        def arrays(self) -> Any:
            before = len(simulation.waits)
            arrays = super().arrays()
            found.append(f"wait {len(simulation.waits) - before}")
            return arrays

    monkeypatch.setattr(lm.model, "forward", forward)
    for module in (log_likelihood, corpus):
        monkeypatch.setattr(module, "Fetch", Watched)
    return found


def assert_launched_ahead(lm: HFLM, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """Between waits there is a launch, and none before the last wait: it has been made already."""
    with simulated(monkeypatch) as simulation:
        on_device(lm)
        order = order_of(lm, simulation, monkeypatch)
        run()
    assert order.count("wait 1") >= 3
    assert [pair == ("wait 1", "wait 1") for pair in pairwise(order)] == [False] * (len(order) - 2) + [True]


@pytest.mark.parametrize("shared", [False, True])
def test_a_call_is_launched_before_the_last_one_s_results_are_fetched(
    shared: bool, lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = scoring_requests(texts(40), (" A", " B", " C", " more"), shared_prefixes=shared)
    monkeypatch.setattr(cost, "H100", cost.H100._replace(launch=0.0, bandwidth=1e30, most_tokens=128))
    assert_launched_ahead(lm, monkeypatch, lambda: scoring.token_scores(lm, requests))


def test_a_corpus_s_batch_is_launched_before_the_last_one_s_results_are_fetched(
    lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Instance("loglikelihood_rolling", {}, ("x y" * 300,), 0, metadata=("t", n, 1)) for n in range(3)]
    for request in requests:
        request.n_bins = 10
    assert_launched_ahead(lm, monkeypatch, lambda: scoring.corpus_scores(lm, requests))


def test_a_pack_is_launched_before_the_answers_about_answers_are_fetched(
    lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a pack's own answers are waited for: the queries about them go on behind it."""
    monkeypatch.setattr(cost, "H100", cost.H100._replace(launch=0.0, bandwidth=1e30, most_tokens=128))

    def run() -> None:
        config = make_config(make_rows(20), metadata={"calibration": {"p_true": "kapoor"}})
        run_tasks(lm, [CalibratedTask(config)])

    with simulated(monkeypatch) as simulation:
        on_device(lm)
        run()  # the trial
        order = order_of(lm, simulation, monkeypatch)
        forward = packed.PackedForward.__call__

        def call(self: Any, step: Any, columns: Any) -> Any:
            order.append("queries" if step.kept else "pack")
            return forward(self, step, columns)

        monkeypatch.setattr(packed.PackedForward, "__call__", call)
        run()
    order = order[order.index("pack") :]
    under_way = [order[:i].count("launch") - order[:i].count("wait 1") for i in range(len(order))]
    packs = [i for i, what in enumerate(order) if what == "pack"]
    assert [under_way[i] for i in packs] == [0, *[1] * (len(packs) - 1)]
    assert len(packs) > 2
    first_behind = [order.index("queries", i) for i in packs]
    assert {under_way[i] for i in first_behind} == {0}
    assert {n for i, n in enumerate(under_way) if order[i] == "queries" and i not in first_behind} == {1}
