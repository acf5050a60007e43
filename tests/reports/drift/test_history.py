"""The history file: appended whole, never changed, refused when broken."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.history import describe_history
from lm_eval_calibration.reports.drift.history import Entry, append, read_history
from lm_eval_calibration.reports.drift.picture import MOST_TASKS, panels_of, prepare_history

VALUES = {"all": {"ece": [0.1, 0.05, 0.2], "auroc": [None, None, None]}, "t": {"ece": [0.3, 0.2, 0.4]}}
ENTRY = Entry("a1", "2026-01-31T10:00:00", "org/model", 10, VALUES, {"all": 3, "t": 2})


def test_runs_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.jsonl"
    later = replace(ENTRY, run="b2", date="2026-02-28T10:00:00", base="a1", verdict="drifted", drifted=("t ece",))
    assert append(path, [ENTRY]) == [ENTRY]
    before = path.read_bytes()
    assert append(path, [ENTRY, later]) == [ENTRY, later]  # a run that is in it is not added again
    assert path.read_bytes().startswith(before)
    assert read_history(path) == [ENTRY, later]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "run"', "its last line was cut short"),
        ("hello\n", "line 1: not a line of a history"),
        ("[]\n", "line 1: not a line of a history: it is not an object"),
        ('{"version": 9}\n', "line 1: not a line of a history: version 9"),
        ('{"version": 1}\n', "line 1: not a line of a history: .*missing"),
    ],
)
def test_a_broken_file_is_refused_and_left_alone(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        append(path, [ENTRY])
    assert path.read_text(encoding="utf-8") == text


def test_bad_numbers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append(path, [ENTRY])
    data = json.loads(path.read_text(encoding="utf-8"))
    data["values"]["t"]["ece"] = ["x"]
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1.*\['x'\] is not value, lower and upper end"):
        read_history(path)


def test_the_picture_shows_the_pooled_docs_in_order_of_time() -> None:
    later = replace(ENTRY, date="2026-02-28T10:00:00", values={"all": {"ece": [0.2, 0.1, 0.3]}}, drifted=("t ece",))
    (panel,) = prepare_history([later, ENTRY])  # auroc is undefined throughout
    assert (panel.metric, panel.values, panel.lows) == ("ece", (0.1, 0.2), (0.05, 0.1))
    assert panel.drifted == (False, True)
    assert describe_history([panel]) == "2 runs over time: ece from 0.1000 to 0.2000; 1 metric had drifted in some run"


def test_a_file_shows_the_tasks_too_those_that_drifted_last_first() -> None:
    numbers: dict[str, list[float | None]] = {"ece": [0.1, 0.05, 0.15]}
    values = {"all": numbers, **{f"t{i}_calibration": numbers for i in range(12)}}
    entry = replace(ENTRY, values=values, drifted=("t7_calibration ece",))
    names = [panel.metric for panel in panels_of([entry])]
    assert names[:3] == ["All tasks: ece", "T7: ece", "T0: ece"]
    assert len(names) == 1 + MOST_TASKS
