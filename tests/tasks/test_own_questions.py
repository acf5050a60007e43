"""People's own questions: how files are read, columns found, answers understood; what errors name."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.tasks.own_questions import docs_of, find_columns, load, task_config
from lm_eval_calibration.tasks.question_files import read_table

HEAD = "question,a,b,c,answer,ward"
ROWS = ["First drug in anaphylaxis?,adrenaline,aspirin,insulin,{},icu", "Makes insulin?,spleen,pancreas,lung,{},er"]


def table(tmp_path: Path, text: str, name: str = "ward.csv") -> Any:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_table(str(tmp_path / name))


def ward(tmp_path: Path, *answers: str) -> Any:
    return table(tmp_path, "\n".join([HEAD, *(row.format(a) for row, a in zip(ROWS, answers, strict=True))]))


DOCS = [
    {
        "question": "First drug in anaphylaxis?",
        "choices": ["adrenaline", "aspirin", "insulin"],
        "answer": 0,
        "ward": "icu",
    },
    {"question": "Makes insulin?", "choices": ["spleen", "pancreas", "lung"], "answer": 1, "ward": "er"},
]


@pytest.mark.parametrize(
    ("answers", "how"),
    [
        (("A", "b"), "letter"),
        (("(A)", "B."), "letter"),
        (("adrenaline", "pancreas"), "text"),
        (("0", "1"), "index_from_0"),
    ],
)
def test_letters_texts_and_indices(tmp_path: Path, answers: tuple[str, str], how: str) -> None:
    found = ward(tmp_path, *answers)
    columns, guessed = find_columns(found)
    assert columns.answers_are == how
    assert guessed == ["--question question", "--options a,b,c", "--answer answer"]
    assert docs_of(found, columns) == DOCS


def test_indices_that_could_count_from_0_or_1_are_not_guessed(tmp_path: Path) -> None:
    found = ward(tmp_path, "1", "2")
    with pytest.raises(
        TaskError, match="can be read as index_from_0 or index_from_1: say which, --answers_are index_from_0"
    ):
        find_columns(found)
    columns, _ = find_columns(found, answers_are="index_from_1")
    assert docs_of(found, columns) == DOCS
    assert find_columns(ward(tmp_path, "1", "3"))[0].answers_are == "index_from_1"
    with pytest.raises(TaskError, match="--answers_are number: there are text, letter"):
        find_columns(found, answers_are="number")


def test_every_kind_of_file_gives_the_same_docs(tmp_path: Path) -> None:
    rows = [{**doc, "answer": doc["choices"][doc["answer"]]} for doc in DOCS]
    (tmp_path / "w.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "w.json").write_text(json.dumps(rows), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(tmp_path / "w.parquet")
    packed = [{**row, "choices": "|".join(row["choices"])} for row in rows]
    pd.DataFrame(packed).to_csv(tmp_path / "w.csv", index=False, sep=";", encoding="utf-8-sig")
    pd.DataFrame(packed).to_csv(tmp_path / "w.tsv", index=False, sep="\t")
    for suffix in ("jsonl", "json", "parquet", "csv", "tsv"):
        found = read_table(str(tmp_path / f"w.{suffix}"))
        assert docs_of(found, find_columns(found)[0]) == DOCS, suffix


def test_a_dataset_by_its_name(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    found = read_table("cais/mmlu:anatomy")
    columns, guessed = find_columns(found)
    assert guessed == ["--question question", "--options choices", "--answer answer"]
    assert columns.answers_are == "index_from_0"
    docs = docs_of(found, columns)
    assert len(docs) == 135
    assert docs[0]["subject"] == "anatomy"


def test_a_row_may_have_fewer_options(tmp_path: Path) -> None:
    found = table(tmp_path, HEAD + "\nYes or no?,yes,no,,B,icu\nWhich?,x,y,z,C,er\n")
    assert [len(doc["choices"]) for doc in docs_of(found, find_columns(found)[0])] == [2, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "Q?,x,y,z,A,icu\nQ?,x,y,z,E,icu",
            r"ward.csv row 2 (line 3), column answer: 'E' is none of its options (the letters A to C)",
        ),
        ("Q?,x,y,z,A,icu\nQ?,x,y,z,,icu", "ward.csv row 2 (line 3), column answer: there is no answer"),
        (
            "Q?,x,y,z,x,icu\nQ?,x,y,z,w,icu",
            "ward.csv row 2 (line 3), column answer: 'w' is none of its options (x; y; z)",
        ),
        ("Q?,x,,z,A,icu", "ward.csv row 1 (line 2), columns a, b, c: option B is empty, and a later one is not"),
        ("Q?,x,x,z,A,icu", "ward.csv row 1 (line 2), columns a, b, c: the option 'x' is there twice"),
        ("Q?,x,,,A,icu", "ward.csv row 1 (line 2), columns a, b, c: 1 options; a question has 2 to 26"),
        (",x,y,z,A,icu", "ward.csv row 1 (line 2), column question: there is no question"),
        ("Q?,x,y,z,A,icu,more", "ward.csv row 1 (line 2) has 7 cells; the head has 6"),
        ("Q?,x,y,z", "ward.csv row 1 (line 2) has 4 cells; the head has 6"),
        ('"Q?,x,y,z,A,icu', "ward.csv line 2: unexpected end of data"),
    ],
)
def test_errors_name_row_and_column(tmp_path: Path, rows: str, message: str) -> None:
    def read() -> None:
        found = table(tmp_path, f"{HEAD}\n{rows}\n")
        docs_of(found, find_columns(found)[0])

    with pytest.raises(TaskError) as raised:
        read()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("head", "given", "message"),
    [
        (
            "prompt,question,a,b,answer",
            {},
            "several could be the question (prompt, question): name it, --question COLUMN",
        ),
        ("text,a,b,answer", {}, "none is named as the question: name it, --question COLUMN"),
        ("question,a,b,answer,gold", {}, "several could be the answer (answer, gold): name it, --answer COLUMN"),
        ("question,x,y,answer", {}, "none are named as options: name them, --options a,b,c,d"),
        ("question,a,b,option_1,option_2,answer", {}, "several could be the options (a,b; option_1,option_2)"),
        ("question,a,b,answer", {"question": "questoin"}, "ward.csv has no column 'questoin' (did you mean question?)"),
        ("question,a,b,answer", {"options": "a,b,c"}, "ward.csv has no column 'c'"),
    ],
)
def test_only_what_is_unambiguous_is_guessed(tmp_path: Path, head: str, given: dict[str, str], message: str) -> None:
    found = table(tmp_path, f"{head}\n" + ",".join("xyzwvu"[: head.count(",") + 1]) + "\n")
    with pytest.raises(TaskError) as raised:
        find_columns(found, **given)
    assert message in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "w.xlsx").write_bytes(b"PK")
    (tmp_path / "w.csv").write_bytes("question,a,b,answer\n\xfc?,x,y,A\n".encode("latin-1"))
    (tmp_path / "w.parquet").write_bytes(b"PAR")
    (tmp_path / "empty.csv").write_text(HEAD, encoding="utf-8")
    for name, message in (
        ("w.xlsx", "save a spreadsheet as CSV UTF-8"),
        ("w.csv", r"is not UTF-8 \(byte \d+\): save it as CSV UTF-8"),
        ("w.parquet", "w.parquet is no Parquet file"),
        ("empty.csv", "has no rows"),
        ("missing.csv", "there is no such file"),
        ("org/no_such_dataset", "is neither a file nor a dataset that can be loaded"),
    ):
        with pytest.raises(TaskError, match=message):
            read_table(str(tmp_path / name) if "/" not in name else name)


def test_the_yaml_of_a_file_says_all_that_its_task_needs(tmp_path: Path) -> None:
    found = ward(tmp_path, "A", "B")
    columns, _ = find_columns(found)
    config = task_config("ward_calibration", str(tmp_path / "ward.csv"), columns)
    (tmp_path / "elsewhere").mkdir()
    split = load(**config["dataset_kwargs"], version=1)["test"]
    assert [dict(doc) for doc in split] == DOCS
