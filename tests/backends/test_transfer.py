"""On an accelerator the host waits once a batch: for its results.

The meta device stands in for one: it computes shapes only, and refuses whatever would need a value on the host (`item`,
`nonzero`, a mask as an index). Transfers to the host are counted, and answered with zeros.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import make_gpt2, scoring_requests
from torch.utils._python_dispatch import TorchDispatchMode

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends.hf import cost, forward, log_likelihood, trial
from lm_eval_calibration.backends.hf.distributions import summarize
from lm_eval_calibration.backends.hf.output_layer import Spared
from lm_eval_calibration.backends.hf.transfer import to_device, to_host

META = torch.device("meta")


class Transfers(TorchDispatchMode):
    """Counts copies from the meta device to the host, which it makes zeros of."""

    def __init__(self) -> None:
        super().__init__()
        self.to_host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and device == torch.device("cpu"):
            self.to_host += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_s_results_come_in_one_transfer(dtype: torch.dtype) -> None:
    with Transfers() as transfers:
        found = summarize(
            torch.empty(5, 1000, dtype=dtype, device=META), to_device([0, 0, 4], META), to_device([7, 8, 9], META)
        )
    assert transfers.to_host == 1
    assert found.target_log_probs.shape == found.target_is_greedy.shape == (3,)
    assert found.log_normalizers.shape == (5,)
    assert [len(probs) for probs in found.large_probs] == [101] * 5  # as many as can be: to count would be to wait


@pytest.mark.parametrize("operation", [lambda z: z[0, 0].item(), lambda z: z.nonzero(), lambda z: z[z > 0]])
def test_the_stand_in_refuses_what_would_halt_a_device(operation: Any) -> None:
    with Transfers(), pytest.raises((RuntimeError, NotImplementedError)):
        operation(torch.empty(2, 3, device=META))


def test_what_comes_from_the_device_is_what_was_there() -> None:
    parts = [torch.randn(3, 2), torch.tensor([True, False]), torch.zeros(0), torch.tensor(4.5)]
    found = to_host(*parts)
    assert [array.dtype for array in found] == [np.float64] * 4
    for array, tensor in zip(found, parts, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
    assert to_device([[1, 2], [3, 4]], torch.device("cpu")).tolist() == [[1, 2], [3, 4]]


def requests(n: int, shared: bool, **wishes: Any) -> list[Instance]:
    """Two subjects whose questions begin alike."""
    contexts = [f"{subject} and again {subject}: {i}" for subject in ("art", "biology") for i in range(n)]
    return scoring_requests(contexts, (" A", " B", " C"), shared_prefixes=shared, **wishes)


def on_meta(lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> HFLM:
    monkeypatch.setattr(torch, "autocast", lambda **_: nullcontext())  # knows no meta device
    lm.model.to(META)
    lm._device = META
    return lm


def count_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    batches: list[int] = []
    deliver = log_likelihood._Scoring._deliver

    def counting(self: Any, numbers: Any, *rest: Any, **options: Any) -> None:
        batches.append(len(numbers))
        deliver(self, numbers, *rest, **options)

    monkeypatch.setattr(log_likelihood._Scoring, "_deliver", counting)
    return batches


@pytest.mark.parametrize("temperatures", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_the_host_waits_once_a_batch(
    shared: bool, temperatures: bool, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "spared", lambda *_: Spared(True, True))  # these compare values, once a run
    monkeypatch.setattr(trial, "_compare", lambda *_: None)
    for name in ("CPU", "H100"):
        monkeypatch.setattr(cost, name, getattr(cost, name)._replace(most_tokens=60, launch=0.0, bandwidth=1e30))
    batches = count_batches(monkeypatch)
    lm = on_meta(
        HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, device="cpu", batch_size=4), monkeypatch
    )
    with Transfers() as transfers:
        answers = scoring.token_scores(lm, requests(6, shared, temperatures=temperatures))
    assert {answer.certificate["shared_prefixes"] for answer in answers} == {shared}
    assert transfers.to_host == len(batches) > 1
