"""The questions of a report's page: the docs as they were logged, whole or cut, and nothing where redacted."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_runs import make_generated_lines, make_lines, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.reports.report.explorer import docs as explorer_docs
from lm_eval_calibration.reports.report.explorer.docs import ExplorableDocs, explorable_docs
from lm_eval_calibration.reports.report.explorer.scopes import scopes
from lm_eval_calibration.reports.report.explorer.texts import shortened, texts_of, without_examples


def columns_of(found: ExplorableDocs) -> dict[str, list[Any]]:
    columns = json.loads(zlib.decompress(base64.b64decode(found.data)))
    assert {len(column) for name, column in columns.items() if name != "tasks"} == {found.n_docs}
    return columns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = {
        "a_calibration": make_lines("a_calibration", n=30),
        "b_calibration": make_lines("b_calibration", n=20, k=3),
    }
    return write_run(tmp_path_factory.mktemp("run"), tasks)


def test_every_doc_is_there_as_it_was_logged(folder: Path) -> None:
    run = load_run(folder)
    columns = columns_of(explorable_docs(run))
    assert columns["tasks"] == ["a_calibration", "b_calibration"]
    for i, sample in enumerate(run.samples):
        record = sample.record
        assert columns["tasks"][columns["task"][i]] == record.task
        assert columns["confidence"][i] == pytest.approx(record.confidence, abs=1e-12)
        assert (columns["correct"][i], columns["gold"][i]) == (record.correct, record.gold)
        assert columns["probs"][i] == pytest.approx(record.probs.tolist(), abs=5e-5)
        assert columns["answer"][i] == int(np.argmax(record.probs))
        assert columns["question"][i] in sample.line["arguments"]["gen_args_0"]["arg_0"]
        assert columns["right"][i] == columns["choices"][i][record.gold]


def test_a_written_answer_has_its_tokens_and_its_text(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, {"g_calibration": make_generated_lines("g_calibration", n=12, empty=2)}))
    columns = columns_of(explorable_docs(run))
    for i, record in enumerate(run.records):
        assert columns["tokens"][i] == pytest.approx(np.exp(record.generation.token_log_probs).tolist(), abs=0.006)
    assert columns["confidence"][:2] == [None, None]
    assert columns["written"][3] == "Because 3"
    assert columns["right"][3] == "So"


def test_redacted_docs_have_numbers_only(folder: Path) -> None:
    found = explorable_docs(load_run(folder), redact=True)
    columns = columns_of(found)
    assert not found.has_texts
    assert not {"question", "written", "right", "choices"} & set(columns)
    assert "Which" not in json.dumps(columns)


def test_texts_are_cut_to_what_a_page_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(folder)
    whole = explorable_docs(run)
    assert whole.length == explorer_docs.LENGTHS[0]
    monkeypatch.setattr(explorer_docs, "MOST_CHARACTERS", len(explorable_docs(run, redact=True).data) + 10)
    bare = explorable_docs(run)
    assert (bare.has_texts, bare.length) == (False, 0)
    monkeypatch.setattr(explorer_docs, "MOST_DOCS", 10)
    some = explorable_docs(run)
    assert (some.n_docs, some.n_all) == (10, 50)
    assert columns_of(some)["task"] == sorted(columns_of(some)["task"])


def test_what_all_prompts_of_a_task_begin_with_is_left_out() -> None:
    prompts = [f"Answer.\n\nQ: 1+1\nA: 2\n\nQ: what {word}\nA:" for word in ("cat", "cow", "dog")]
    assert without_examples([*prompts, None]) == ["Q: what cat\nA:", "Q: what cow\nA:", "Q: what dog\nA:", None]
    assert without_examples(["one\n\ntwo"]) == ["one\n\ntwo"]
    assert without_examples(["same\nsame", "same\nsame"]) == ["same\nsame"] * 2
    assert without_examples([None, ""]) == [None, ""]
    assert without_examples([]) == []


def test_a_cut_text_keeps_the_end_that_matters() -> None:
    assert shortened("abcdef", 3, keep="start") == "abc…"
    assert shortened("abcdef", 3, keep="end") == "…def"
    assert shortened("abc", 3, keep="end") == "abc"
    assert shortened(None, 3, keep="end") is None


def test_scopes_are_domains_and_then_the_other_tasks() -> None:
    found = scopes({"All together": ("a", "b"), "g": ("b",)}, ("a", "b"), {})
    assert [(one["name"], one["tasks"], one["task"]) for one in found] == [
        ("All together", [0, 1], None),
        ("g", [1], None),
        ("a", [0], 0),
        ("b", [1], 1),
    ]
    assert all(one["threshold"] is None for one in found)


def test_requests_that_are_fewer_than_the_choices_give_the_question_alone(tmp_path: Path) -> None:
    lines = [
        line | {"arguments": {"gen_args_0": line["arguments"]["gen_args_0"]}}
        for line in make_lines("law_calibration", n=20)
    ]
    sample = load_run(write_run(tmp_path, {"law_calibration": lines})).samples[0]
    texts = texts_of(sample)
    assert texts.question
    assert (texts.answer, texts.right, texts.choices) == (None, None, ())
