"""What a run shows: progress that vanishes, warnings once and at the end, tables that fit."""

import io
import logging
import sys
import warnings
from typing import Any

import lm_eval.utils
import pytest
from lm_eval.utils import make_table
from tqdm import tqdm

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness import terminal
from lm_eval_calibration.harness.terminal import fitted_table, for_people, set_verbosity

HARNESS = logging.getLogger("lm_eval.evaluator")
OURS = logging.getLogger("lm_eval.calibration")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_warnings_come_once_at_the_end_and_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    with for_people():
        HARNESS.info("a step")
        HARNESS.warning("of the\n   harness")
        OURS.warning("%s is ours", "this")
        HARNESS.warning("of the harness")
        OURS.warning("and this")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("of Python", UserWarning, stacklevel=1)
            shown_here = warnings.showwarning
        HARNESS.error("at once")
        assert capsys.readouterr().err == "at once\n"
    assert capsys.readouterr().err.splitlines() == [
        "Warnings",
        "  calibration  this is ours",
        "               and this",
        "  lm-eval      of the harness",
        "  python       of Python",
    ]
    assert warnings.showwarning is not shown_here


def test_warnings_are_not_lost_with_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with for_people():
            OURS.warning("before it failed")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "before it failed" in capsys.readouterr().err


def test_everything_shows_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("lm_eval").handlers, tqdm.__init__, lm_eval.utils.make_table
    with for_people(False):
        assert (logging.getLogger("lm_eval").handlers, tqdm.__init__, lm_eval.utils.make_table) == before
    with for_people():
        assert tqdm.__init__ is not before[1]
    assert (logging.getLogger("lm_eval").handlers, tqdm.__init__, lm_eval.utils.make_table) == before


def shown(stream: io.StringIO, items: Any, **options: Any) -> str:
    for _ in tqdm(items, file=stream, **options):
        pass
    return stream.getvalue()


def test_bars_vanish_and_those_of_nothing_never_show() -> None:
    with for_people():
        finished = shown(Terminal(), range(3), leave=True, mininterval=0)
        assert "0/3" in finished
        assert finished.endswith("\r")
        assert finished.rsplit("\r", 2)[1].strip() == ""
        assert shown(Terminal(), [], desc="Nothing") == ""
        assert shown(Terminal(), iter([]), total=0) == ""
        assert shown(Terminal(), range(3), disable=True) == ""


def test_in_a_log_file_a_bar_shows_after_a_minute_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with for_people():
        assert shown(io.StringIO(), range(3)) == ""
        monkeypatch.setattr(terminal, "SLOW_SECONDS", 0.0)
        assert "3/3" in shown(io.StringIO(), range(3), miniters=1)


def table_of(name: str) -> str:
    row = {"acc,none": 0.5, "acc_stderr,none": 0.1, "brier_score,none": 0.25, "brier_score_stderr,none": "N/A"}
    results: dict[str, Any] = {"results": {name: {"alias": name, **row}}, "versions": {name: 1}, "n-shot": {name: 0}}
    results |= {"higher_is_better": {name: {"acc": True, "brier_score": False}}}
    return str(make_table(results))


@pytest.mark.parametrize(
    "name", ["t", "mmlu_anatomy_calibration", "mmlu_high_school_government_and_politics_calibration"]
)
@pytest.mark.parametrize("width", [60, 80, 120, 500])
def test_a_table_fits_or_says_what_is_left_out(name: str, width: int) -> None:
    table = table_of(name)
    fitted = fitted_table(table, width)
    assert max(len(line) for line in fitted.splitlines() if line.startswith("|")) <= width
    needed = max(map(len, table.splitlines()))
    if needed <= width:
        assert fitted == table
    else:
        assert fitted.splitlines()[-1].startswith("(not shown: Version")
        assert f"a terminal of {needed} columns shows them" in fitted
    rows = [line.split("|") for line in fitted.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [row[-5].strip() for row in rows[2:]] == ["↑", "↓"]
    assert "|0.50|" in fitted.replace(" ", "")


def test_names_lose_their_middle_last() -> None:
    fitted = fitted_table(table_of("mmlu_high_school_government_and_politics_calibration"), 66)
    assert "|mmlu_high_sch" in fitted
    assert "…" in fitted
    assert "calibration|" in fitted


def test_the_table_of_a_run_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(lm_eval.utils, "make_table", lambda: "|" + "x" * 100 + "|Version|Filter|n-shot|\n")
    with for_people():
        assert "not shown" in lm_eval.utils.make_table()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with for_people():
        assert "not shown" not in lm_eval.utils.make_table()


def test_a_level_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="--verbosity LOUD: there are CRITICAL"):
        set_verbosity("loud".upper())
