"""What has no sign is shown as an escape, wherever text from data is shown."""

import csv
import io
from pathlib import Path

import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration.plots.style import xml_text
from lm_eval_calibration.records.display import counted, some, visible
from lm_eval_calibration.reports.escaping import csv_cell, latex, markdown
from lm_eval_calibration.reports.tables import csv_table, plain_table

HIDDEN = ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\ufffe", "\udc80"]


@pytest.mark.parametrize("char", HIDDEN)
@pytest.mark.parametrize("show", [visible, markdown, csv_cell, xml_text, latex, lambda t: plain_table(["h"], [[t]])[1]])
def test_every_sign_is_one_that_can_be_seen(char: str, show: object) -> None:
    shown = show(f"a{char}b")  # type: ignore[operator]
    assert char not in shown
    assert f"{ord(char):x}" in shown.lower()
    shown.encode()


def test_the_first_of_some_texts_and_how_many_more() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde"), 2, "; ") == "a; b and 3 more"
    assert [counted(1), counted(1425, 1), counted(2, what="runs")] == ["1 doc", "1,425 docs of 1 cluster", "2 runs"]


def test_signs_stay() -> None:
    text = "Käse 中文 عربى 👩\u200d💻 n_bins=10 µ"
    assert visible(text) == text
    assert visible("a\nb\tc\rd\\e") == "a\\nb\\tc\\rd\\e"


@pytest.mark.parametrize("text", ["=1", "  =1", "x\r=1", "\r=1", "\u00a0=1", "\t@x", "-1+1", " +x"])
def test_no_spreadsheet_computes_a_cell(text: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_table(["h"], [[text]]))))
    assert len(rows) == 2
    assert rows[1][0].lstrip()[:1] not in ("=", "+", "-", "@")
    assert "\r" not in rows[1][0]


@pytest.mark.parametrize(
    "command", ["drift {} {}", "compare {} {}", "drift {} {} --format github", "report {}/nothing"]
)
def test_a_task_s_name_starts_no_line(tmp_path: Path, command: str) -> None:
    name = "x\n::set-env name=A::b_calibration"
    a, b = (write_run(tmp_path / model, model=f"o/{model}", tasks={name: 40}, seed=i) for i, model in enumerate("ab"))
    done = run_command(*command.format(a, b).split())
    assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("::set-env")]
