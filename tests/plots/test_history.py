"""Marks of a time axis: at regular distances of the calendar, few enough to read."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from lm_eval_calibration.plots.history import time_ticks
from lm_eval_calibration.plots.trade_off import ticks

FIRST = datetime(2025, 3, 14, 10, 30)


@pytest.mark.parametrize("days", [1, 3, 8, 20, 45, 90, 200, 400, 900, 2000, 9000])
def test_times_are_regular_and_few(days: int) -> None:
    last = FIRST + timedelta(days=days)
    found = [time for time, _ in time_ticks(FIRST, last, 5)]
    assert 1 <= len(found) <= 5
    assert all(FIRST <= time <= last for time in found)
    steps = {(12 * b.year + b.month) - (12 * a.year + a.month) for a, b in pairwise(found)}
    apart = {b - a for a, b in pairwise(found)}
    assert len(apart) <= 1 or (len(steps) == 1 and {time.day for time in found} == {1})


def test_of_runs_within_a_day_the_ends_are_named() -> None:
    found = time_ticks(FIRST, FIRST + timedelta(hours=5))
    assert [label for _, label in found] == ["03-14 10:30", "03-14 15:30"]
    assert len(time_ticks(FIRST, FIRST)) == 1


@pytest.mark.parametrize("ends", [(0.45, 0.63), (0.0, 1.0), (0.031, 0.032), (0.5, 0.5), (-0.2, 3.7)])
def test_numbers_are_round_and_hold_what_is_shown(ends: tuple[float, float]) -> None:
    found = ticks(ends)
    assert found[0] <= ends[0] + 1e-9
    assert found[-1] >= ends[1] - 1e-9
    assert 2 <= len(found) <= 9
