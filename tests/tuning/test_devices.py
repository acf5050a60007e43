"""Tuning on devices that aren't there: a model on one, and one whose last layers are on another."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from simulated_device import FIRST, move, on_device, over_both, simulated
from tiny import make_gpt2
from transformers import TrainingArguments

from lm_eval_calibration.tuning import training
from lm_eval_calibration.tuning.adapter import PROBE, with_adapter
from lm_eval_calibration.tuning.examples import Collator, Example, Row, Target
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.probe import read_out
from lm_eval_calibration.tuning.questions import NO_CHOICE
from lm_eval_calibration.tuning.settings import Protocol

PLACES: dict[str, Callable[[Any], Any]] = {
    "one device": on_device,
    "two devices": lambda lm: over_both(lm, returns_to_the_first=True),
    "two devices, logits on the last": lambda lm: over_both(lm, returns_to_the_first=False),
}


def examples() -> list[Example]:
    """A choice of two, and an answer that the model wrote."""
    choices = Row(tuple(range(10, 22)), [Target(11, 5, 0), Target(11, 6, 1)], [Target(7, 3, 0), Target(7, 4, 1)], [7])
    written = Row(tuple(range(30, 39)), [Target(8, 5, 0), Target(8, 6, 1)], [], [4, 5])
    return [Example((choices,), 1, 0, 0, False), Example((written,), 0, NO_CHOICE, 0, False)]


def load(byte_tokenizer: Any, method: str) -> tuple[HFLM, Any]:
    """The backend, and its model with an adapter whose weights differ from 0."""
    lm = HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, device="cpu", batch_size=2)
    model = with_adapter(lm.model, Protocol(method=method, target_modules=("c_attn",)))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "probe" in name:
                weight.normal_(0, 0.1)
    return lm, model.eval()


def losses(lm: HFLM, model: Any, method: str, picks: bool, device: torch.device) -> list[np.ndarray]:
    """Loss, log-odds and answers that stay of a batch; hidden states and log-odds as a probe reads them."""
    forward = Forward(lm, examples()[0].rows[0].tokens)
    assert forward.picks
    forward.picks = picks
    trainer = SimpleNamespace(
        forward=forward,
        probe=model.get_submodule(PROBE) if method == "lora-probe" else None,
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
    )
    batch = {name: values.to(device) for name, values in Collator(0)(examples()).items()}
    with torch.no_grad():
        loss, found = training.CalibrationTrainer.compute_loss(trainer, model, batch, return_outputs=True)
    hidden, correct, log_odds = read_out(forward, model, examples(), batch_size=2, pad_token_id=0)
    return [np.asarray(x.cpu()) for x in (loss, *found.values())] + [hidden, correct, log_odds]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("picks", [True, False])
@pytest.mark.parametrize("method", ["lora", "lora-probe"])
def test_losses_and_probes_are_the_cpu_s(
    method: str, picks: bool, place: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, model = load(byte_tokenizer, method)
    expected = losses(lm, model, method, picks, torch.device("cpu"))
    with simulated(monkeypatch):
        PLACES[place](lm)
        move(model, FIRST)  # what is on none yet: the probe
        found = losses(lm, model, method, picks, FIRST)
    for ours, cpu in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, cpu, rtol=1e-4, atol=1e-5)


def test_one_process_trains_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: vars(self).get("_n_gpu", 4)))
    monkeypatch.setattr(TrainingArguments, "_setup_devices", torch.device("cpu"))
    model = torch.nn.Linear(1, 1)
    model.device, model.dtype = torch.device("cpu"), torch.float32
    assert training._arguments(Protocol(), tmp_path, 10, model).train_batch_size == Protocol().batch_size
