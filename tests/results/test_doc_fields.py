"""Which fields of docs make groups."""

from typing import Any

import pytest

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results.doc_fields import _Reader, names_of


def read(
    docs: list[Any], targets: list[Any] | None = None, wanted: str = "all"
) -> tuple[dict[str, Any], dict[str, str]]:
    reader = _Reader(len(docs), names_of(wanted))
    for row, doc in enumerate(docs):
        reader.add(row, "t", doc, None if targets is None else targets[row])
    fields, left_out = reader.found()
    values = {
        name: [field.values[code] if code >= 0 else None for code in field.codes] for name, field in fields.items()
    }
    return values, left_out


def test_fields_within_fields_numbers_and_missing_values() -> None:
    docs = [{"meta": {"site": "b" if i % 2 else "a"}, "age": i % 3, "ward": "" if i % 2 else "x"} for i in range(60)]
    values, left_out = read(docs)
    assert values["doc.meta.site"][:3] == ["a", "b", "a"]
    assert values["doc.age"][:4] == ["0", "1", "2", "0"]
    assert values["doc.ward"][:2] == ["x", None]
    assert left_out == {"task": "one value"}


def test_why_fields_make_no_groups() -> None:
    docs = [
        {"id": i, "text": "x" * 101, "list": [1], "answer": i % 4, "guess": i % 4 if i % 20 else 3, "rare": i % 30}
        for i in range(400)
    ]
    values, left_out = read(docs, [i % 4 for i in range(400)])
    assert values == {}
    assert left_out == {
        "doc.answer": "tells the right answer",
        "doc.guess": "tells the right answer",
        "doc.id": "more than 100 values",
        "doc.list": "no single value",
        "doc.rare": "fewer than 20 docs of each value",
        "doc.text": "texts",
        "task": "one value",
    }


def test_a_field_that_only_helps_to_guess_makes_groups() -> None:
    docs = [{"hint": i % 4 if i % 2 else (i + 1) % 4} for i in range(400)]
    assert set(read(docs, [i % 4 for i in range(400)])[0]) == {"doc.hint"}


def test_redacted_docs_have_no_fields() -> None:
    assert read([None] * 30)[1]["doc"] == "logged without its fields (redacted)"
    with pytest.raises(UserError, match=r"--groups doc\.ward: logged without its fields \(redacted\)"):
        read([None] * 30, wanted="doc.ward")


def test_names() -> None:
    assert names_of("doc.ward, task,doc.ward") == ("doc.ward", "task")
    with pytest.raises(UserError, match="names no field"):
        names_of(" , ")
