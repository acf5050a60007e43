"""Answer and confidence in one reply: its form, what filters see of it, and what is read, strictly."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from generation_tasks import EXACT, make_config, make_sums, options, run
from lm_eval import simple_evaluate
from scripted import Scripted, TextsOnly
from tiny import run_tasks
from users_tasks import SHAPES, make_rows, write_task

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.confidences.verbalized_1s import FORM, VERBALIZED_1S, Verbalized1SReading
from lm_eval_calibration.tasks.written_choices import WrittenChoiceTask

WANTED = options(verbalized_1s=True)

REPLY = "Explanation: I add.\nAnswer: {}\nConfidence: {}"


def stated(reply: str) -> float | None:
    return Verbalized1SReading("verbalized_1s", "tian_1s").confidence_of(reply, "", ()).confidence


@pytest.mark.parametrize(
    ("reply", "confidence"),
    [
        (REPLY.format("4", "85%"), 0.85),
        (REPLY.format("4", "62.5 %.\n"), 0.625),
        ("Confidence: 85%", 0.85),
        ("**Answer:** 4\n**Confidence:** 85%\n", 0.85),
        ("**Answer**: 4\n**Confidence**: 85%\n", 0.85),
        (REPLY.format("4", "**0%**"), 0.0),
        (REPLY.format("4", "100%\n\nLet me know if you want more."), 1.0),
        ("<think>Answer: 3\nConfidence: 10%\n</think>\n" + REPLY.format("4", "85%"), 0.85),
        ("Answer: 3\nConfidence: 10%\n</think>\n" + REPLY.format("4", "85%"), 0.85),  # the template opened it
        ("", None),
        ("Answer: 4", None),
        (REPLY.format("4", ""), None),
        (REPLY.format("4", "85"), None),
        (REPLY.format("4", "0.85"), None),
        (REPLY.format("4", "high"), None),
        (REPLY.format("4", "101%"), None),
        (REPLY.format("4", "80% to 90%"), None),
        (REPLY.format("4", "about 85%"), None),
        (REPLY.format("4", "85%") + "\nConfidence: 85%", None),  # two lines: which?
        ("My confidence is 85%", None),
        ("Answer: 4, Confidence: 85%", None),
        ("confidence: 85%", None),
        ("<think>Answer: 3\nConfidence: 10%", None),  # the thought never ends
    ],
)
def test_one_line_states_the_confidence_or_nothing_does(reply: str, confidence: float | None) -> None:
    assert stated(reply) == confidence


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        (REPLY.format("42", "85%"), ("42", "The answer is 42.")),
        ("Answer: 42", ("42", "The answer is 42.")),
        ("**Answer:** (B) \n\n**Confidence:** 85%", ("(B)", "The answer is (B).")),
        ("Answer: 4\nNo, wait.\nAnswer: 5\nConfidence: 9%", ("5", "The answer is 5.")),  # the last one stands
        ("Answer:\n    return x\n\nConfidence: 9%", ("    return x", "The answer is     return x.")),
        ("Answer:   \n\n    return x\nConfidence: 9%", ("    return x", "The answer is     return x.")),
        ("Answer: one\ntwo\nConfidence: 9%", ("one\ntwo", "The answer is one\ntwo.")),
        ("Answer:\nConfidence: 9%", ("", "The answer is .")),
        ("So it is #### 42\nConfidence: 85%", ("So it is #### 42",)),
        ("The answer is 42", ("The answer is 42",)),
        ("", ("",)),
        ("<think>Answer: 1</think>Answer: 2\nConfidence: 9%", ("2", "The answer is 2.")),
        ("<think>Answer: 1", ("",)),
    ],
)
def test_what_filters_are_shown(reply: str, answers: tuple[str, ...]) -> None:
    assert VERBALIZED_1S.answers_in(reply) == answers


def adds(prompt: str, asked: int = 0) -> str:
    """Right where the first number is even, and sure of it; of some sums it states no confidence."""
    a, b = map(int, re.findall(r"(\d+) \+ (\d+)", prompt)[-1])
    confidence = "no idea" if a % 5 == 3 else "90%" if a % 2 == 0 else "30%"
    return f"Explanation: 1 + 1 = 2, and so on.\nAnswer: {a + b + a % 2}\nConfidence: {confidence}"


def test_metrics_are_those_of_what_is_stated(harness_log: pytest.LogCaptureFixture) -> None:
    results, samples, records = run(TextsOnly(adds), make_config(**WANTED))
    expected = [None if i % 5 == 3 else 0.9 if i % 2 == 0 else 0.3 for i in range(12)]
    assert [record.stated["verbalized_1s"].confidence for record in records] == expected
    assert [record.correct for record in records] == [1, 0] * 6
    read = [(c, r.correct) for c, r in zip(expected, records, strict=True) if c is not None]
    for name in ("brier_top_label", "ece", "ace", "auroc", "skill_score", "rms_ce_mass"):
        value = metrics.GENERATION_CATALOG[name].value(*zip(*read, strict=True))
        assert results[f"{name}_verbalized_1s,none"] == pytest.approx(value, abs=1e-12)
    assert results["exact_match,none"] == results["acc,none"] == 0.5
    assert results["unparsed_verbalized_1s,none"] == pytest.approx(2 / 12)
    assert "2 of 12 replies state no confidence in the requested form (" in harness_log.text
    assert math.isnan(results["rms_ce_mass_without_last_verbalized_1s,none"])
    assert "10 docs make one bin of at least 100" in harness_log.text
    assert "ece,none" not in results  # this backend has no other confidence
    assert samples[0]["resps"][0][0] == adds("0 + 0")  # the log has replies as they were
    assert samples[0]["arguments"][0][0] == f"0 + 0\n\n{FORM}"


def test_the_published_figure_is_beside_the_whole_one() -> None:
    rows = make_sums(230)
    results, _, records = run(TextsOnly(adds), make_config(rows, **WANTED))
    pairs = [(r.stated["verbalized_1s"].confidence, r.correct) for r in records]
    read = list(zip(*[pair for pair in pairs if pair[0] is not None], strict=True))
    assert results["rms_ce_mass_verbalized_1s,none"] == pytest.approx(metrics.rms_ce_mass(*read), abs=1e-12)
    assert math.isnan(results["rms_ce_mass_without_last_verbalized_1s,none"])  # 184 docs have a confidence
    results, _, records = run(TextsOnly(adds), make_config(make_sums(300), **WANTED))
    pairs = [(r.stated["verbalized_1s"].confidence, r.correct) for r in records]
    read = list(zip(*[pair for pair in pairs if pair[0] is not None], strict=True))
    expected = metrics.rms_ce_mass_without_last(*read)
    assert results["rms_ce_mass_without_last_verbalized_1s,none"] == pytest.approx(expected, abs=1e-12)
    assert "rms_ce_mass_without_last_verbalized_1s_stderr,none" not in results


def regex(name: str, pattern: str, **options: Any) -> dict[str, Any]:
    found = {"function": "regex", "regex_pattern": pattern, **options}
    return {"name": name, "filter": [found, {"function": "take_first"}]}


FILTERS = [
    regex("last-number", r"(-?\d+)", group_select=-1),
    regex("sentence", r"answer is \(?(\d+)\)?"),
    regex("strict", r"#### (\d+)"),
    {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]},
]


def test_filters_see_the_answer_and_not_the_confidence() -> None:
    """The last number of the reply is the confidence, and the explanation has others."""
    results, samples, _ = run(TextsOnly(adds), make_config(filter_list=FILTERS, **WANTED))
    assert [results[f"exact_match,{name}"] for name in ("last-number", "sentence", "strict", "stripped")] == [
        *(0.5, 0.5, 0.0, 0.5)
    ]
    by_filter = {line["filter"]: line["filtered_resps"] for line in samples if line["doc_id"] == 1}
    assert by_filter == {"last-number": ["3"], "sentence": ["3"], "strict": ["[invalid]"], "stripped": ["3"]}


def test_a_reply_of_another_form_reaches_the_filters_without_its_confidence() -> None:
    def script(prompt: str, asked: int) -> str:
        return "1 + 1 = 2, so\n#### 2\nConfidence: 75%"

    results, _, records = run(TextsOnly(script), make_config(filter_list=FILTERS, **WANTED))
    assert results["exact_match,strict"] == results["exact_match,last-number"] == 1 / 12
    assert results["exact_match,sentence"] == 0
    assert {record.stated["verbalized_1s"].confidence for record in records} == {0.75}


def test_nothing_of_the_form_is_unparsed_and_nothing_is_defined(harness_log: pytest.LogCaptureFixture) -> None:
    results, *_ = run(TextsOnly(lambda *_: "certainly"), make_config(**WANTED))
    assert results["unparsed_verbalized_1s,none"] == 1
    assert math.isnan(results["ece_verbalized_1s,none"])
    assert "ece_verbalized_1s is undefined: no doc has a confidence" in harness_log.text


def test_replies_are_not_cut_short_and_token_confidence_stays_beside() -> None:
    lm = Scripted(adds)
    results, _, records = run(lm, make_config(**WANTED), limit=3)
    assert lm.settings[0] == {"do_sample": False, "temperature": 0.0, "until": [], "max_gen_toks": 512}
    assert {"ece,none", "ece_verbalized_1s,none"} <= results.keys()
    assert all(record.confidence == pytest.approx(0.5) for record in records)
    assert "full_ece,none" not in results  # a reference answer is no reply in the form
    lm = Scripted(adds)
    kept = {"until": ["\n"], "max_new_tokens": 2048, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    run(lm, make_config(generation_kwargs=kept, **WANTED), limit=1)
    expected = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "until": [], "max_gen_toks": 2048}
    assert lm.settings[0] == expected


def test_samples_agree_on_the_answer_not_on_the_reply() -> None:
    def script(prompt: str, asked: int) -> str:
        return f"Explanation: try {asked}.\nAnswer: {4 if asked else 5}\nConfidence: {asked}0%"

    config = make_config([{"question": "2 + 2", "answer": "4"}], **options(verbalized_1s=True, repeats=3))
    results, _, records = run(Scripted(script), config)
    assert results["acc_self_consistency,none"] == 1
    assert records[0].generation.majority == (2 / 3, 1)
    assert records[0].stated["verbalized_1s"].confidence == 0  # of the first


def test_examples_are_left_out_or_refused_by_name(harness_log: pytest.LogCaptureFixture) -> None:
    task = CalibratedTask(make_config(num_fewshot=2, fewshot_split="test", **WANTED))
    results = run_tasks(TextsOnly(adds), [task], limit=2)
    assert results["samples"]["sums_calibration"][0]["arguments"][0][0] == f"0 + 0\n\n{FORM}"
    assert "zero-shot, where the stock task has 2 examples" in harness_log.text
    task.set_config("num_fewshot", 2)
    with pytest.raises(TaskError, match="sums_calibration: num_fewshot is 2, but examples can't show the form of verb"):
        run_tasks(TextsOnly(adds), [task], limit=2)


def test_a_reply_that_the_task_begins_is_refused() -> None:
    with pytest.raises(TaskError, match=r"sums_calibration: the task begins each reply itself \(gen_prefix is 'It is'"):
        CalibratedTask(make_config(gen_prefix="It is", **WANTED))


def test_cached_requests_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    for first, second in ((WANTED, {}), ({}, WANTED)):
        run_tasks(
            TextsOnly(adds), [CalibratedTask(make_config(**first))], cache_requests=True, rewrite_requests_cache=True
        )
        with pytest.raises(TaskError, match="the cached requests were made with other options"):
            run_tasks(TextsOnly(adds), [CalibratedTask(make_config(**second))], cache_requests=True)


# --- docs with choices ------------------------------------------------------------------------------------------------


def letters(prompt: str, asked: int = 0) -> str:
    """B, in one reply after another in another form."""
    lines = prompt.splitlines()
    number = int(re.search(r"number (\d+)", prompt).group(1))
    answer = ["B", "(B)", "B.", lines[4], "Birch trees are tall", "A or B"][number % 6]
    return f"Explanation: they are tall. A is not.\nAnswer: {answer}\nConfidence: 60%"


def test_docs_with_choices_are_answered_by_a_letter(tmp_path: Path) -> None:
    task = calibrated(write_task(tmp_path, "letters", **SHAPES["letters"]), verbalized_1s=True)
    assert type(task) is WrittenChoiceTask
    results = run_tasks(TextsOnly(letters), [task])
    lines, row = results["samples"][task.task_name], results["results"][task.task_name]
    prompt = lines[0]["arguments"][0][0]
    assert prompt.startswith("Choose one answer: A, B, C or D.\n\n")
    assert prompt.endswith(f"\n\n{FORM}")
    records = [Record.from_dict(line["calibration"]) for line in lines]
    named = [i % 6 < 4 for i in range(16)]
    assert [r.stated["verbalized_1s"].confidence for r in records] == [0.6 if n else None for n in named]
    right = [n and doc["answer"] == 1 for n, doc in zip(named, make_rows(), strict=True)]
    assert [bool(record.correct) for record in records] == right
    assert row["acc,none"] == sum(right) / 16
    assert row["unparsed_verbalized_1s,none"] == named.count(False) / 16


def test_names_and_pooled_groups(tmp_path: Path) -> None:
    for name in ("letters", "ragged"):
        write_task(tmp_path, name, **SHAPES[name])
    group = {"group": "trees", "task": ["letters", "ragged"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False)
    lm = TextsOnly(lambda *_: REPLY.format("A", "70%"))
    results = simple_evaluate(model=lm, tasks=["trees_verbalized_1s_calibration"], task_manager=manager)
    row = results["groups"]["trees_verbalized_1s_calibration"]
    tasks = ("letters_verbalized_1s_calibration", "ragged_verbalized_1s_calibration")
    records = [Record.from_dict(line["calibration"]) for task in tasks for line in results["samples"][task]]
    read = [(0.7, record.correct) for record in records]
    assert row["ece_verbalized_1s,none"] == pytest.approx(metrics.ece(*zip(*read, strict=True)), abs=1e-12)
    assert row["unparsed_verbalized_1s,none"] == 0
    assert row["rms_ce_mass_verbalized_1s,none"] == pytest.approx(metrics.rms_ce_mass(*zip(*read, strict=True)))


def test_a_program_keeps_its_indentation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def judge(doc: Any, answers: Any) -> dict[str, float]:
        seen.append(answers[0])
        return {"pass": 1.0}

    script = TextsOnly(lambda *_: "Explanation: easy.\nAnswer:\n    return 1\n\nConfidence: 90%")
    config = make_config(process_results=judge, metric_list=[{**EXACT, "metric": "pass"}], **WANTED)
    results, *_ = run(script, config, limit=1)
    assert seen == ["    return 1"]
    assert results["acc,none"] == 1
