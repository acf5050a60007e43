"""The real SmolLM2-135M with a template that begins a thought, as thinking models have it."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch

from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR
from lm_eval_calibration.tasks.confidences.verbalized import QUESTION

pytestmark = [pytest.mark.slow, pytest.mark.real_model]

CLOSED = "<think>\n\n</think>\n\n"


@pytest.fixture
def lm(smollm2_lm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """It thinks to the end of a line: it has never learnt to close a thought in another way."""
    tokenizer = copy.deepcopy(smollm2_lm.tokenizer)
    prompt = "'<|im_start|>assistant\n'"
    assert prompt in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(prompt, "'<|im_start|>assistant\n<think>\n'")
    monkeypatch.setattr(smollm2_lm, "tokenizer", tokenizer)
    monkeypatch.setattr(smollm2_lm, "enable_thinking", True)
    monkeypatch.setattr(smollm2_lm, "think_end_token", "\n")
    return smollm2_lm


def config(**options: Any) -> dict[str, Any]:
    rows = [{"question": f"What is {i} plus two? Say it in one line.", "choices": [], "answer": "4"} for i in range(3)]
    written = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_text": "{{question}}"}
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    settings = {"generation_kwargs": {"until": [], "max_gen_toks": 40, "do_sample": False}, "metric_list": [metric]}
    metadata = {"metadata": {"calibration": options}}
    return tiny.make_config(rows, "sums_calibration", **written, **settings, **metadata)


def rescored(lm: Any, prompt: str, text: str) -> Any:
    """Log-probabilities of the tokens of a text after a prompt, as the harness cuts the two, by one plain forward."""
    context, tokens = lm._encode_pair(prompt, text)
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*context, *tokens]])).logits[0, len(context) - 1 : -1].double()
    return logits.log_softmax(-1)[range(len(tokens)), tokens]


def test_questions_follow_the_closed_thought(lm: Any) -> None:
    from lm_eval.api.task import ConfigurableTask

    stock = tiny.run_tasks(lm, [ConfigurableTask(config={**config(), "task": "sums"})], apply_chat_template=True)
    task = CalibratedTask(config(p_true="kapoor", verbalized=True, question_max_gen_toks=24))
    lines = tiny.run_tasks(lm, [task], apply_chat_template=True)["samples"]["sums_calibration"]
    thoughts = 0
    for line, theirs in zip(lines, stock["samples"]["sums"], strict=True):
        prompt, text = line["arguments"][0][0], line["resps"][0][0]
        assert prompt.endswith("<|im_start|>assistant\n<think>\n")
        assert str(text) == theirs["resps"][0][0]
        record = Record.from_dict(line["calibration"])
        before = prompt.removesuffix("<think>\n")
        answered = f"{before}{CLOSED}{text}<|im_end|>\n<|im_start|>user\n"
        whole = f"{answered}{KAPOOR.question.strip()}<|im_end|>\n<|im_start|>assistant\n{CLOSED}"
        verdicts = [float(rescored(lm, whole, verdict.strip()).sum()) for verdict in KAPOOR.continuations]
        assert record.stated["p_true"].confidence == pytest.approx(KAPOOR.p_true(verdicts), abs=1e-4)
        thoughts += bool(text.thought)
        assert len(text.token_log_probs) <= 40
        assert isinstance(line["verbalized_reply"], str)
        assert QUESTION not in line["verbalized_reply"]
    assert thoughts


def test_multiple_choice_is_refused_by_name(lm: Any) -> None:
    with pytest.raises(
        TaskError, match=r"letters_calibration: the model thinks .*\. letters_verbalized_calibration and"
    ):
        tiny.run_tasks(lm, [CalibratedTask(tiny.make_config(tiny.make_rows(3)))], apply_chat_template=True)
