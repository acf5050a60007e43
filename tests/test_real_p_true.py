"""The real SmolLM2-135M asked whether its own answers are right: as the logits of the two tokens say."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import run_tasks

from lm_eval_calibration import calibrated
from lm_eval_calibration.records import RECORD_KEY
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR

pytestmark = [pytest.mark.slow, pytest.mark.real_model, pytest.mark.real_data]


@pytest.mark.parametrize("chat", [False, True])
def test_p_true_is_that_of_two_tokens(chat: bool, smollm2_lm: Any, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    results = run_tasks(smollm2_lm, [calibrated("mmlu_anatomy_p_true")], limit=3, apply_chat_template=chat)
    continuations = [text.strip() if chat else text for text in KAPOOR.continuations]
    tokens = [smollm2_lm.tok_encode(text) for text in continuations]
    assert [len(ids) for ids in tokens] == [1, 1]
    for line in results["samples"]["mmlu_anatomy_p_true_calibration"]:
        record = line[RECORD_KEY]
        own = int(np.argmax(record["log_likelihoods"]))
        context, choice = line["arguments"][own]
        if chat:
            history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": choice}]
            history.append({"role": "user", "content": KAPOOR.question.strip()})
            whole = smollm2_lm.apply_chat_template(history)
            prompt = context + whole[whole.rindex(f"assistant\n{choice}") + len("assistant\n") :]
            assert prompt.endswith(f"{KAPOOR.question.strip()}<|im_end|>\n<|im_start|>assistant\n")
        else:
            prompt = f"{context}{choice}{KAPOOR.question}"
        with torch.no_grad():
            logits = smollm2_lm.model(torch.tensor([smollm2_lm.tok_encode(prompt)])).logits[0, -1].double()
        expected = float(logits[[ids[0] for ids in tokens]].softmax(0)[KAPOOR.true])
        assert record["p_true"]["confidence"] == pytest.approx(expected, abs=1e-4)
