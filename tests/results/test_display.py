"""Figures of a run for notebooks: axes come back, and several runs share them."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from made_runs import write_run

from lm_eval_calibration import CalibrationDisplay, load_run

mpl.use("agg")


@pytest.fixture
def runs(tmp_path: Path) -> list[Any]:
    tasks = {"anatomy_calibration": 60, "virology_calibration": 40}
    return [load_run(write_run(tmp_path / name, tasks=tasks, seed=seed)) for name, seed in (("a", 0), ("b", 1))]


def test_every_plot_of_a_run_returns_its_axes(runs: list[Any]) -> None:
    plots = [name for name in dir(runs[0]) if name.startswith("plot_")]
    assert {"plot_reliability", "plot_risk_coverage"} <= set(plots)
    for name in plots:
        ax = getattr(runs[0], name)()
        assert isinstance(ax, mpl.axes.Axes)
        assert getattr(runs[0], name)(ax=ax, tasks="anatomy_calibration") is ax
        mpl.pyplot.close(ax.figure)


def test_runs_share_a_display_s_axes(runs: list[Any]) -> None:
    first = CalibrationDisplay.from_run(runs[0], name="before")
    second = CalibrationDisplay.from_run(runs[1], ax=first.ax_, name="after", n_bins=5, tasks="virology_calibration")
    assert second.ax_ is first.ax_
    assert second.figure_ is first.figure_
    labels = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert labels[0] == "calibrated"  # once
    assert [label.split(" (ECE")[0] for label in labels[1:]] == ["before", "after"]
    assert len(second.data.bins) == 5
    assert second.data.n_docs == 40
    assert first.ax_.get_lines()[1].get_color() != first.ax_.get_lines()[2].get_color()
    mpl.pyplot.close(first.figure_)


def test_the_curve_goes_through_the_bins(runs: list[Any]) -> None:
    display = CalibrationDisplay.from_run(runs[0])
    line = display.ax_.get_lines()[1]
    bins = [b for b in display.data.bins if b.n_docs]
    assert line.get_xdata().tolist() == [b.confidence for b in bins]
    assert line.get_ydata().tolist() == [b.accuracy for b in bins]
    mpl.pyplot.close(display.figure_)
