"""The history as a picture: each metric over time, with intervals, runs that had drifted marked."""

from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.style import COLOURS, drawing, to_png, to_svg
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.drift.history import Entry
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.results.differences import METRICS, POOLED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = Path(__file__).with_name("history.html")

COLUMNS, TICKS = 2, 5

ARROWS = {True: "higher is better", False: "lower is better", None: "best at 0"}


class Panel(NamedTuple):
    """One metric over time; runs in which it is undefined are left out.

    Attributes:
        metric: its name.
        dates: of the runs.
        values: of the metric.
        lows: lower ends of the intervals.
        highs: upper ends.
        drifted: whether this metric had drifted, on any task.
    """

    metric: str
    dates: tuple[datetime, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    drifted: tuple[bool, ...]


def prepare_history(entries: Sequence[Entry]) -> list[Panel]:
    """Metrics of the pooled docs of each run (of its only task) over time, in order of time."""
    points: dict[str, list[tuple[datetime, float, float, float, bool]]] = {}
    for entry in sorted(entries, key=lambda entry: entry.date):
        date = datetime.fromisoformat(entry.date)
        for metric, numbers in pooled_values(entry).items():
            if None not in numbers:
                value, low, high = (float(x) for x in numbers if x is not None)
                drifted = any(name.split(" ")[-1] == metric for name in entry.drifted)
                points.setdefault(metric, []).append((date, value, low, high, drifted))
    return [Panel(metric, *map(tuple, zip(*of_metric, strict=True))) for metric, of_metric in points.items()]


def pooled_values(entry: Entry) -> dict[str, list[float | None]]:
    """Values of the docs of all tasks, or of the only one."""
    return entry.values.get(POOLED) or next(iter(entry.values.values()), {})


def write_picture(path: Path, entries: Sequence[Entry]) -> None:
    """Write the history's picture: .svg, .png, or .html with a table of the runs."""
    panels = prepare_history(entries)
    if path.suffix not in (".svg", ".png", ".html"):
        raise UserError(f"{path}: a picture is a file .svg, .png or .html")
    if path.suffix == ".png":
        write_whole(path, _draw(panels, "png"))
    elif path.suffix == ".svg":
        write_whole(path, _draw(panels, "svg"))
    else:
        from markupsafe import Markup

        picture = Markup(_draw(panels, "inline").decode())
        page = render_page(
            TEMPLATE, title="Calibration over time", entries=entries, picture=picture, values=pooled_values
        )
        write_whole(path, page)


def describe(panels: Sequence[Panel]) -> str:
    """Say what the picture shows, for who can't see it."""
    parts = [f"{p.metric} from {p.values[0]:.4f} to {p.values[-1]:.4f}" for p in panels]
    n_drifted = sum(any(p.drifted) for p in panels)
    runs = max((len(p.values) for p in panels), default=0)
    return f"{runs} runs over time: {', '.join(parts)}; {n_drifted} metrics had drifted in some run"


def _draw(panels: Sequence[Panel], form: str) -> bytes:
    rows = -(-len(panels) // COLUMNS)
    with drawing(7.5, 0.6 + 1.9 * rows, panels=(rows, COLUMNS)) as (figure, axes):
        for panel, ax in zip_longest(panels, axes):
            if panel is None:
                ax.set_axis_off()
                continue
            _draw_panel(panel, ax)
        if form == "png":
            return to_png(figure)
        return to_svg(figure, label=describe(panels), inline=form == "inline").encode()


def _draw_panel(panel: Panel, ax: "Axes") -> None:
    days = [(date - panel.dates[0]).total_seconds() / 86400 for date in panel.dates]
    below = [value - low for value, low in zip(panel.values, panel.lows, strict=True)]
    above = [high - value for value, high in zip(panel.values, panel.highs, strict=True)]
    ax.errorbar(days, panel.values, yerr=[below, above], color=COLOURS[0], marker="o", markersize=4, capsize=2)
    drifted = [index for index, is_so in enumerate(panel.drifted) if is_so]
    if drifted:
        crosses = [days[index] for index in drifted], [panel.values[index] for index in drifted]
        ax.plot(*crosses, "X", color=COLOURS[1], markersize=9, label="drifted")
        ax.legend(loc="best", fontsize=8)
    ax.set_title(f"{panel.metric} ({ARROWS[METRICS[panel.metric].higher_is_better]})", fontsize=9, loc="left")
    ticks = sorted({round(i * (len(days) - 1) / (TICKS - 1)) for i in range(TICKS)})
    ax.set_xticks([days[i] for i in ticks], [f"{panel.dates[i]:%Y-%m-%d}" for i in ticks], rotation=30, ha="right")
    ax.grid(alpha=0.25)
