"""A GGUF file is a base model like any other: tuned for some steps, saved, and loaded by the harness."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.tuning import model as base_model
from lm_eval_calibration.tuning.command import _train
from lm_eval_calibration.tuning.questions import Answer, ChoiceQuestion, load_questions
from lm_eval_calibration.tuning.settings import GradingSettings, Protocol


@pytest.fixture
def grading(tmp_path: Path, trees: Path) -> GradingSettings:
    pytest.importorskip("gguf", reason="GGUF files need `gguf` (extra `demo`)")
    tiny.write_gguf(tmp_path / "tiny.gguf")
    return GradingSettings(str(tmp_path), "gguf_file=tiny.gguf", ("trees",), 0.5, 8, include_path=str(trees))


def answered(question: ChoiceQuestion, is_right: bool) -> Answer:
    answer = (question.gold + (not is_right)) % len(question.choices)
    return question.answer(tuple(-float(k != answer) for k in range(len(question.choices))))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # the harness, loading an adapter
def test_an_adapter_of_a_gguf_file(grading: GradingSettings, tmp_path: Path) -> None:
    lm = base_model.load(grading, "cpu", 2)
    tokens = torch.tensor([lm.tok_encode("The proposed answer is")])
    with torch.no_grad():
        untuned = lm.model(tokens).logits
    (task,) = load_questions(grading, "kapoor", lm)
    questions = sorted(task.questions, key=lambda question: question.held_out)
    answers = [answered(question, is_right=bool(i % 2)) for i, question in enumerate(questions)]
    protocol = Protocol(batch_size=2, learning_rate=1e-2)
    validations, details = _train(lm, answers, grading, protocol, tmp_path / "adapter")
    assert details["steps"] == 3  # two of eight are held out
    assert validations[-1]["nll"] != pytest.approx(validations[0]["nll"], abs=1e-3)
    tuned = HFLM(pretrained=grading.model, gguf_file="tiny.gguf", device="cpu", peft=str(tmp_path / "adapter"))
    with torch.no_grad():
        assert not torch.allclose(untuned, tuned.model(tokens).logits, atol=1e-3)


def test_weights_that_do_not_train_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = torch.nn.Linear(2, 2)
    model.register_buffer("blocks", torch.zeros(2, dtype=torch.uint8))
    config = SimpleNamespace(quant_method=SimpleNamespace(value="gguf"))
    model.dtype, model.hf_quantizer = torch.float32, SimpleNamespace(is_trainable=False, quantization_config=config)
    loaded = SimpleNamespace(backend="causal", model=model, tokenizer=None)
    monkeypatch.setattr("lm_eval.models.huggingface.HFLM", lambda **_: loaded)
    with pytest.raises(UserError, match="org/model is quantised by gguf, which can't be trained"):
        base_model.load(GradingSettings("org/model", "", ("trees",), 0.5, 10), "cpu", 2)
