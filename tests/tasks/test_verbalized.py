"""Verbalized confidence: what the model says in words, read strictly."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from generation_tasks import adds, make_config, run
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from scripted import Scripted, TextsOnly
from tiny import make_config as make_choices
from tiny import make_rows as make_lettered_rows
from tiny import run_tasks
from users_tasks import SHAPES, make_rows, write_task

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.confidences.verbalized import QUESTION, stated_probability
from lm_eval_calibration.tasks.written_choices import WrittenChoiceTask

ASKED = {"metadata": {"calibration": {"verbalized": True}}}

METRICS = ("brier_top_label", "ece", "ace", "auroc", "skill_score")


@pytest.mark.parametrize(
    ("reply", "confidence"),
    [
        ("85%", 0.85),
        (" 85 %", 0.85),
        ("Probability: 85%", 0.85),
        ("Probability: 62.5%.\n", 0.625),
        ("0%", 0.0),
        ("100%", 1.0),
        ("", None),
        ("85", None),  # of 100, or a hundred times a probability?
        ("0.85", None),
        ("101%", None),
        ("-5%", None),
        ("NUMBER%", None),
        ("about 85%", None),
        ("85% sure", None),
        ("80% to 90%", None),
        ("It is not 85%", None),
        ("Probability: high", None),
        ("**85%**", None),
        ("1e1%", None),
        ("٨٥%", None),
    ],
)
def test_a_reply_is_a_percentage_or_nothing(reply: str, confidence: float | None) -> None:
    assert stated_probability(reply) == confidence


def says(prompt: str, asked: int = 0) -> str:
    """Adds as `adds` does; asked how sure, it is 90% sure of even answers, and says nothing that is one of some."""
    if not prompt.rstrip(":").endswith("Probability"):
        return adds(prompt, asked)
    answer = re.search(r"\d+ \+ \d(\d+)\s", prompt).group(1)
    return "no idea" if answer.endswith("3") else " 90%" if int(answer) % 2 == 0 else "Probability: 30%"


def test_metrics_are_those_of_what_is_stated_where_something_is(harness_log: pytest.LogCaptureFixture) -> None:
    results, samples, records = run(TextsOnly(says), make_config(**ASKED))
    answers = [adds(f"{i} + {i % 3}") for i in range(12)]
    expected = [None if a.endswith("3") else 0.9 if int(a) % 2 == 0 else 0.3 for a in answers]
    assert [record.stated["verbalized"].confidence for record in records] == expected
    read = [(c, r.correct) for c, r in zip(expected, records, strict=True) if c is not None]
    for name in METRICS:
        value = metrics.GENERATION_CATALOG[name].value(*zip(*read, strict=True))
        assert results[f"{name}_verbalized,none"] == pytest.approx(value, abs=1e-12)
    assert results["acc,none"] == 0.5  # every doc counts there
    assert samples[0]["verbalized_reply"] == " 90%"
    n_unread = expected.count(None)
    assert results["unparsed,none"] == pytest.approx(n_unread / 12)
    assert 0 < n_unread < 12
    assert f"{n_unread} of 12 replies can't be read" in harness_log.text
    assert "ece,none" not in results  # this backend has no other confidence


def test_nothing_that_can_be_read_is_nothing_defined(harness_log: pytest.LogCaptureFixture) -> None:
    results, *_ = run(TextsOnly(lambda *_: "certainly"), make_config(**ASKED))
    assert results["unparsed,none"] == 1
    assert math.isnan(results["ece_verbalized,none"])
    assert "ece_verbalized is undefined: no doc has a confidence" in harness_log.text


def test_the_question_follows_the_answer(gpt2_lm: HFLM) -> None:
    prompts: list[str] = []

    def script(prompt: str, asked: int) -> str:
        prompts.append(prompt)
        return says(prompt, asked)

    results, _, records = run(Scripted(script), make_config(**ASKED), limit=2)
    assert prompts[2] == f"0 + 00\n\n{QUESTION}\nProbability:"
    assert {"ece,none", "ece_verbalized,none"} <= results.keys()  # beside that of its tokens
    assert all(record.confidence == pytest.approx(0.5) for record in records)
    results, samples, _ = run(gpt2_lm, make_config(**ASKED), limit=3)
    assert results["unparsed,none"] == 1  # random weights
    assert [len(line["resps"][0]) for line in samples] == [1] * 3


def test_chat_servers_get_messages() -> None:
    """As the harness's chat backends take them: a JSON text of messages."""
    from lm_eval.models.api_models import JsonChatStr

    seen: list[Any] = []

    class Chat(TextsOnly):
        tokenizer_name = "x"

        def chat_template(self, _: Any) -> str:
            return ""

        def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> JsonChatStr:
            return JsonChatStr(json.dumps(messages))

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            chats = [json.loads(request.args[0].prompt) for request in requests]
            seen.extend(chats)
            return [adds(chat[0]["content"]) if len(chat) == 1 else "75%" for chat in chats]

    _, _, records = run(Chat(adds), make_config(**ASKED), apply_chat_template=True, limit=3)
    assert seen[3] == [
        {"role": "user", "content": "0 + 0"},
        {"role": "assistant", "content": "0"},
        {"role": "user", "content": QUESTION},
    ]
    assert {record.stated["verbalized"].confidence for record in records} == {0.75}


# --- docs with choices ------------------------------------------------------------------------------------------------


def names(reply: Any, stated_percentage: str = "60%") -> Any:
    """A model that answers each prompt by what `reply` makes of its lines."""

    def script(prompt: str, _: int) -> str:
        return stated_percentage if prompt.endswith("Probability:") else reply(prompt.splitlines())

    return TextsOnly(script)


def run_choices(tmp_path: Path, shape: str, lm: Any, **chosen: Any) -> tuple[dict[str, Any], list[Record], list[Any]]:
    task = calibrated(write_task(tmp_path, shape, **SHAPES[shape]), verbalized=True, **chosen)
    results = run_tasks(lm, [task])
    lines = results["samples"][task.task_name]
    return results["results"][task.task_name], [Record.from_dict(line["calibration"]) for line in lines], lines


@pytest.mark.parametrize("shape", ["letters", "letter_gold", "text_gold", "template_gold", "ragged", "functions"])
def test_every_doc_is_asked_for_a_letter(shape: str, tmp_path: Path) -> None:
    results, records, lines = run_choices(tmp_path, shape, names(lambda _: "B"))
    prompt = lines[0]["arguments"][0][0]
    assert re.match(r"Choose one answer\. Reply with A(, [BC])* or [B-D] and nothing else\.\n\n", prompt)
    if shape != "letter_gold":  # whose letters stand for nothing
        assert "\nb. dogwood\n" in prompt.lower()
    golds = [line["doc"]["answer"] for line in lines]
    if shape == "ragged":
        golds = [gold % len(line["doc"]["some"]) for gold, line in zip(golds, lines, strict=True)]
    if shape != "functions":
        assert [record.correct for record in records] == [int(gold == 1) for gold in golds]
    assert results["acc,none"] == pytest.approx(sum(record.correct for record in records) / len(records))
    assert {record.stated["verbalized"].confidence for record in records} == {0.6}
    assert results["unparsed,none"] == 0
    assert results["ece_verbalized,none"] == pytest.approx(abs(0.6 - results["acc,none"]))
    assert "acc_norm,none" not in results


READ = ["B", " (B)", "B.", "Answer: B", "B) ", "THE LINE", "THE LINE."]
UNREAD = ["b", "B because it grows", "B. something else", "A or B", "E", "Birch trees are tall", "", "A B", "2"]


def test_an_answer_is_a_choice_or_nothing(tmp_path: Path) -> None:
    def reply(lines: list[str]) -> str:
        number = int(re.search(r"number (\d+)", lines[2]).group(1))
        return (READ + UNREAD)[number].replace("THE LINE", lines[4])

    results, records, lines = run_choices(tmp_path, "letters", names(reply))
    assert lines[5]["resps"][0][0].startswith("B. ")
    assert [r.stated["verbalized"].confidence for r in records] == [0.6] * len(READ) + [None] * len(UNREAD)
    right = [i < len(READ) and row["answer"] == 1 for i, row in enumerate(make_rows())]
    assert [bool(record.correct) for record in records] == right
    assert results["unparsed,none"] == len(UNREAD) / 16
    assert results["acc,none"] == sum(right) / 16  # the unread ones are wrong


def test_a_broken_label_is_wrong_and_in_no_metric_of_confidence() -> None:
    rows = [{**row, "answer": -100 if i % 2 else i // 2 % 2} for i, row in enumerate(make_lettered_rows(16))]
    results, _, records = run(names(lambda _: "B"), make_choices(rows, **ASKED))
    assert [record.correct for record in records] == [None if row["answer"] < 0 else row["answer"] for row in rows]
    assert results["acc,none"] == 4 / 16
    assert results["ece_verbalized,none"] == pytest.approx(abs(0.6 - 4 / 8))


def test_several_inputs_have_no_letter(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="multiple_inputs_calibration: a doc of several inputs can't be answered by a"):
        calibrated(write_task(tmp_path, "multiple_inputs", **SHAPES["multiple_inputs"]), verbalized=True)


def test_examples_are_answered_by_letters_too(gpt2_lm: HFLM, tmp_path: Path) -> None:
    task = calibrated(write_task(tmp_path, "text_gold", **SHAPES["text_gold"]), verbalized=True)
    task.set_config("num_fewshot", 2)
    results = run_tasks(names(lambda _: "B"), [task], limit=2)
    prompt = results["samples"]["text_gold_calibration"][0]["arguments"][0][0]
    assert len(re.findall(r"\nAnswer: [A-D]\n\n", prompt)) == 2
    assert prompt.endswith("\nAnswer:")


def test_names_and_pooled_groups(tmp_path: Path) -> None:
    for name in ("letters", "ragged"):
        write_task(tmp_path, name, **SHAPES[name])
    group = {"group": "trees", "task": ["letters", "ragged"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False)
    lm = names(lambda lines: "A" if "r" in lines[-2] else "so?")
    results = simple_evaluate(model=lm, tasks=["trees_verbalized_calibration"], task_manager=manager)
    tasks = ("letters_verbalized_calibration", "ragged_verbalized_calibration")
    assert {type(manager.load([task])["tasks"][task]) for task in tasks} == {WrittenChoiceTask}
    lines = [line for task in tasks for line in results["samples"][task]]
    records = [Record.from_dict(line["calibration"]) for line in lines]
    read = [
        (r.stated["verbalized"].confidence, r.correct) for r in records if r.stated["verbalized"].confidence is not None
    ]
    row = results["groups"]["trees_verbalized_calibration"]
    assert 0 < len(read) < 32
    assert row["unparsed,none"] == pytest.approx(1 - len(read) / 32)
    assert row["ece_verbalized,none"] == pytest.approx(metrics.ece(*zip(*read, strict=True)), abs=1e-12)
    assert "brier_score,none" not in row
