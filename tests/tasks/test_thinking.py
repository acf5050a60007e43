"""Models that think before they answer: questions come after the thought, and what can't be read is refused by name."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from generation_tasks import EXACT, adds, make_config, options, run
from lm_eval.models.huggingface import HFLM
from scripted import Scripted

from lm_eval_calibration.backends.thinking import reason_for_thinking, without_thinking
from lm_eval_calibration.backends.thoughts import after_thought, open_thought
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.confidences.follow_up import FollowUp, last_words
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR
from lm_eval_calibration.tasks.confidences.verbalized import QUESTION

OPENS = """{% for m in messages %}{{ m.role[0] }}:{{ m.content }}
{% endfor %}{% if add_generation_prompt %}a:<think>
{% endif %}"""
"""Begins a thought for the model, whatever it is told."""

SWITCHED = """{% for m in messages %}{{ m.role[0] }}:{{ m.content }}
{% endfor %}{% if add_generation_prompt %}a:{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
"""Leaves the thought to the model, and closes it where the model is not to think."""


def make_lm(gpt2_lm: HFLM, template: str, **chosen: Any) -> HFLM:
    tokenizer = copy.deepcopy(gpt2_lm.tokenizer)
    tokenizer.chat_template = template
    return HFLM(pretrained=gpt2_lm.model, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=2, **chosen)


@pytest.fixture(params=["opens", "switched"])
def lm(gpt2_lm: HFLM, request: pytest.FixtureRequest) -> HFLM:
    template = {"opens": OPENS, "switched": SWITCHED}[request.param]
    return make_lm(gpt2_lm, template, enable_thinking=True, think_end_token="</think>")


def log_likelihood(lm: HFLM, prompt: str, continuation: str) -> float:
    """By one plain forward."""
    context, target = (lm.tokenizer(text)["input_ids"] for text in (prompt, continuation))
    with torch.no_grad():
        rows = lm.model(torch.tensor([[*context, *target]])).logits[0].double().log_softmax(-1)
    return float(sum(rows[len(context) + i - 1, token] for i, token in enumerate(target)))


def test_what_comes_after_a_thought() -> None:
    assert after_thought("<think>a</think>b") == after_thought("a</think>b") == after_thought("b") == "b"
    assert after_thought("<think>a") is None
    assert after_thought("<think>a</think>b</think>c") == "c"
    assert open_thought("x<think>\n") == "</think>"
    assert open_thought("x<thought>") == "</thought>"
    assert open_thought("x<think>\n\n</think>\n\n") is open_thought("<think> is a tag") is open_thought("x") is None
    assert last_words("<think>a\nb</think>\n\n85%\nSure.") == "85%"
    assert last_words("<think>85%") == last_words("a</think>\n") == ""


def test_p_true_is_scored_after_a_closed_thought(lm: HFLM) -> None:
    """It ended in a ValueError after everything was generated: the harness scores no model that thinks."""
    config = make_config(**options(p_true="kapoor"), generation_kwargs={"until": [], "max_gen_toks": 5})
    results, samples, records = run(lm, config, limit=3, apply_chat_template=True)
    assert "ece_p_true,none" in results
    closed = "<think>\n\n</think>\n\n"
    for line, record in zip(samples, records, strict=True):
        prompt, text = line["arguments"][0][0], str(line["resps"][0][0])
        context = prompt.removesuffix("<think>\n") + (closed if prompt.endswith("<think>\n") else "")
        whole = f"{context}{text}\nu:{KAPOOR.question.strip()}\na:{closed}"
        no, yes = (log_likelihood(lm, whole, verdict) for verdict in ("i", "ii"))
        expected = np.exp(min(yes - no, 0))  # each letter is a token: "ii" is a case of having said "i"
        assert record.stated["p_true"].confidence == pytest.approx(expected, abs=1e-5)


def test_multiple_choice_is_refused_before_anything_runs(lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFLM, "_model_generate", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(HFLM, "_model_call", lambda *_, **__: pytest.fail("it ran"))
    tasks = [CalibratedTask(make_config()), CalibratedTask(tiny.make_config(tiny.make_rows(4)))]
    with pytest.raises(
        TaskError, match=r"letters_calibration: the model thinks before it answers \(enable_thinking\)"
    ) as e:
        tiny.run_tasks(lm, tasks, apply_chat_template=True)
    assert "letters_verbalized_calibration and letters_verbalized_1s_calibration let it think" in str(e.value)


def test_a_template_that_begins_a_thought_is_enough(gpt2_lm: HFLM) -> None:
    lm = make_lm(gpt2_lm, OPENS)
    task = tiny.make_config(tiny.make_rows(4), "letters_p_true_calibration", **options(p_true="kapoor"))
    with pytest.raises(
        TaskError, match=r"\(its chat template begins a thought\).*\. letters_verbalized_calibration and"
    ):
        tiny.run_tasks(lm, [CalibratedTask(task)], apply_chat_template=True)
    row = tiny.run_tasks(lm, [CalibratedTask(task)])["results"]["letters_p_true_calibration"]  # without the template
    assert "ece_p_true,none" in row
    assert reason_for_thinking(make_lm(gpt2_lm, SWITCHED), lm.apply_chat_template) != ""
    assert reason_for_thinking(make_lm(gpt2_lm, SWITCHED), make_lm(gpt2_lm, SWITCHED).apply_chat_template) == ""
    assert reason_for_thinking(None, None) == ""


def test_a_reference_continues_no_prompt_of_a_model_that_thinks(
    lm: HFLM, harness_log: pytest.LogCaptureFixture
) -> None:
    settings = {"generation_kwargs": {"until": [], "max_gen_toks": 5}}
    results, *_ = run(lm, make_config(**settings), limit=2, apply_chat_template=True)
    assert "full_ece,none" not in results
    assert "so no reference continues its prompts: full_ece and token_accuracy" in harness_log.text
    config = make_config(**settings, **options(reference="a thought</think>{{answer}}"))
    results, *_ = run(lm, config, limit=2, apply_chat_template=True)
    assert "full_ece,none" in results


def test_the_setting_of_the_template_is_restored(gpt2_lm: HFLM) -> None:
    lm = make_lm(gpt2_lm, SWITCHED, enable_thinking=True, think_end_token="</think>")
    question = [{"role": "user", "content": "Why?"}]
    before = lm.apply_chat_template(question)
    with without_thinking(lm):
        assert lm.apply_chat_template(question).endswith("</think>\n\n")
    assert lm.apply_chat_template(question) == before == "u:Why?\na:"
    assert lm.enable_thinking is True


def test_the_answer_stands_after_its_closed_thought() -> None:
    def template(messages: list[dict[str, str]]) -> str:
        return "".join(f"{m['role'][0]}:{m['content']}\n" for m in messages) + "a:<think>\n"

    open_question = FollowUp("Sure?", template, "sums")
    assert open_question.prompt("u:1\na:<think>\n", "2") == "u:1\na:<think>\n\n</think>\n\n2\nu:Sure?\na:<think>\n"
    scored = FollowUp("Sure?", template, "sums", at_once=True)
    assert scored.prompt("u:1\na:", "2") == "u:1\na:2\nu:Sure?\na:<think>\n\n</think>\n\n"


class Thinker(Scripted):
    """A chat model whose template begins a thought, which no `think_end_token` takes away."""

    tokenizer_name = "thinker"

    def chat_template(self, _: Any) -> str:
        return "t"

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> str:
        return "".join(f"{m['role'][0]}:{m['content']}\n" for m in messages) + "a:<think>\n"


def thinks(prompt: str, asked: int) -> str:
    if QUESTION in prompt:
        return "Well, 10%?\nNo.\n</think>\n\n90%\nI checked." if "5 + 2" not in prompt else "10%? I go on and on"
    return f"I add.\n</think>{adds(prompt)}"


AFTER = {
    "name": "after",
    "filter": [{"function": "regex", "regex_pattern": "</think>(.*)"}, {"function": "take_first"}],
}


def test_the_question_in_words_leaves_room_to_think() -> None:
    lm = Thinker(thinks)
    config = make_config(**options(verbalized=True), filter_list=[AFTER], metric_list=[EXACT])
    results, _, records = run(lm, config, apply_chat_template=True)
    stated = [None if i == 5 else 0.9 for i in range(12)]
    assert [record.stated["verbalized"].confidence for record in records] == stated
    assert results["unparsed,after"] == 1 / 12
    assert results["acc,after"] == 0.5
    asked = [settings for settings in lm.settings if settings["max_gen_toks"] != 8]
    assert asked == [{"until": [], "max_gen_toks": 1024, "do_sample": False, "temperature": 0.0}] * 12
    lm = Thinker(thinks)
    run(lm, make_config(**options(verbalized=True, question_max_gen_toks=77)), limit=1, apply_chat_template=True)
    assert lm.settings[-1]["max_gen_toks"] == 77
    lm = Thinker(thinks)
    run(lm, make_config(**options(verbalized=True, question_max_gen_toks=77)), limit=1)  # no template: no thought
    assert lm.settings[-1] == {"until": ["\n"], "max_gen_toks": 77, "do_sample": False, "temperature": 0.0}


def test_a_letter_is_written_after_the_thought() -> None:
    def script(prompt: str, asked: int) -> str:
        return "</think>\n60%" if QUESTION in prompt else "A or B?\n</think>\n\nB\nBecause it is."

    lm = Thinker(script)
    config = tiny.make_config(tiny.make_rows(8, ragged=False), **options(verbalized=True))
    results = tiny.run_tasks(lm, [CalibratedTask(config)], apply_chat_template=True)
    records = [Record.from_dict(line["calibration"]) for line in results["samples"]["letters_calibration"]]
    assert [record.correct for record in records] == [int(i % 4 == 1) for i in range(8)]
    assert {record.stated["verbalized"].confidence for record in records} == {0.6}
    assert lm.settings[0]["until"] == []
    assert lm.settings[0]["max_gen_toks"] == 1024


def test_the_option_is_a_number() -> None:
    with pytest.raises(TaskError, match="question_max_gen_toks is 'many', not a whole number from 0"):
        CalibratedTask(make_config(**options(question_max_gen_toks="many")))
    assert json.dumps(CalibratedTask(make_config()).options.to_dict())


# --- references of chains of thought ----------------------------------------------------------------------------------

NUMBER = {"name": "number", "filter": [{"function": "regex", "regex_pattern": r"(\d+)"}, {"function": "take_first"}]}
SENTENCE = {
    "name": "sentence",
    "filter": [{"function": "regex", "regex_pattern": r"answer is (\d+)"}, {"function": "take_first"}],
}
STRIPPED = {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
SOLUTION = "I add, so the answer is {{answer}}"


@pytest.mark.parametrize(
    ("overrides", "chosen", "is_scored"),
    [
        ({}, {}, True),
        ({"filter_list": [STRIPPED]}, {}, True),
        ({"filter_list": [NUMBER]}, {}, False),  # the answer alone
        ({"filter_list": [SENTENCE]}, {}, False),  # in which the filter finds nothing
        ({"doc_to_target": SOLUTION, "filter_list": [SENTENCE]}, {}, True),  # a whole solution
        ({"doc_to_target": SOLUTION, "filter_list": [NUMBER]}, {}, True),
        ({"filter_list": [STRIPPED, NUMBER]}, {}, True),  # the first one's answers are scored
        ({"filter_list": [STRIPPED, NUMBER]}, {"filter": "number"}, False),
        ({"filter_list": [NUMBER]}, {"reference": "so it is {{answer}}"}, True),
        ({"filter_list": [NUMBER]}, {"reference": "answer"}, True),
        ({"filter_list": [NUMBER]}, {"reference": ""}, False),
    ],
)
def test_a_bare_answer_is_no_reference_of_a_chain_of_thought(
    gpt2_lm: HFLM,
    overrides: dict[str, Any],
    chosen: dict[str, Any],
    is_scored: bool,
    harness_log: pytest.LogCaptureFixture,
) -> None:
    results, *_ = run(gpt2_lm, make_config(**overrides, **options(**chosen)), limit=2)
    scored = [key for key in results if key.startswith(("full_ece,", "token_accuracy,"))]
    assert len(scored) == 2 * is_scored
    is_said = "takes answers out of longer texts, and no reference is such a text" in harness_log.text
    assert is_said == (not is_scored and "reference" not in chosen)
