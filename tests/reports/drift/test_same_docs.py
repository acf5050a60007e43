"""Docs that were added, removed or changed: a note, or with ``--same_docs`` exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from logged_runs import make_lines, write_run
from made_runs import write_run as made_run

from lm_eval_calibration import metrics

LINES = make_lines("law", 100)


def rehash(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "calibration": {**line["calibration"], "doc_hash": f"other {line['doc_id']}"}}


def wrong(line: dict[str, Any]) -> dict[str, Any]:
    record = line["calibration"]
    lowest = record["log_likelihoods"].index(min(record["log_likelihoods"]))
    return {**line, "calibration": {**record, "gold": lowest}}


CHANGES: dict[str, tuple[Callable[[], list[dict[str, Any]]], str]] = {
    "added": (lambda: LINES + [rehash({**x, "doc_id": 200}) for x in LINES[:1]], "1 doc added, 0 removed, 0 changed"),
    "removed": (lambda: LINES[10:], "0 docs added, 10 removed, 0 changed"),
    "changed": (lambda: [wrong(rehash(x)) for x in LINES[:5]] + LINES[5:], "0 docs added, 0 removed, 5 changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_docs_that_are_not_the_same(tmp_path: Path, name: str) -> None:
    lines, text = CHANGES[name]
    for line in (new := lines()):
        line["calibration"]["doc_id"] = line["doc_id"]
    base, other = write_run(tmp_path / "a", {"law": LINES}), write_run(tmp_path / "b", {"law": new})
    done = run_command("drift", base, other, "--format", "json", "--tolerance", "1", "--metrics", "acc,ece")
    notes = json.loads(done.stdout)["notes"]
    assert done.exit_code == 0
    assert any(text in note for note in notes)
    if name == "changed":
        assert any("0.0% of the added and changed docs are right, of the others" in note for note in notes)
    done = run_command("drift", base, other, "--same_docs", "--metrics", "acc,ece")
    assert done.exit_code == 2
    assert text in done.stdout


def test_the_same_docs_are_no_obstacle(tmp_path: Path) -> None:
    base, other = write_run(tmp_path / "a", {"law": LINES}), write_run(tmp_path / "b", {"law": LINES[::-1]})
    done = run_command("drift", base, other, "--same_docs", "--metrics", "acc,ece")
    assert done.exit_code == 0
    assert "docs are not the same" not in done.stdout


def test_a_rank_needs_no_probability() -> None:
    correct = [1, 0, 1, 0]
    assert metrics.auroc([-3.0, -10.0, 55.0, 2.0], correct) == metrics.auroc([0.3, 0.1, 0.9, 0.5], correct)
    with pytest.raises(ValueError, match=r"confidence\[1\] is nan"):
        metrics.auroc([1.0, float("nan"), 0, 0], correct)
    with pytest.raises(ValueError, match=r"confidence\[0\] is -3.0, outside \[0, 1\]"):
        metrics.ece([-3.0, 0.1, 0.5, 0.2], correct)


def test_equal_answers_of_few_docs_are_no_unclear_accuracy(tmp_path: Path) -> None:
    for name, sharpness in (("a", 2.0), ("b", 2.2)):
        made_run(tmp_path / name, tasks={"anatomy_calibration": 40}, seed=1, sharpness=sharpness)
    done = run_command("drift", tmp_path / "a", tmp_path / "b", "--format", "json")
    verdicts = {test["metric"]: test["verdict"] for test in json.loads(done.stdout)["tests"]}
    assert verdicts["acc"] == "unchanged"
    assert verdicts["brier_score"] == "unclear"
    assert "1 the same in every doc" in done.stdout
