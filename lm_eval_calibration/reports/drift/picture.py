"""The history as a picture or a page: each metric over time, with intervals, runs that had drifted marked."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.drawing import draw_history
from lm_eval_calibration.plots.history import MetricHistory
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.drift.history import Entry
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.results.columns import DIRECTIONS, metric_of
from lm_eval_calibration.results.differences import POOLED

TEMPLATE = Path(__file__).with_name("history.html")


def prepare_history(entries: Sequence[Entry]) -> list[MetricHistory]:
    """Return metrics of the pooled docs of each run (of its only task) in order of time."""
    points: dict[str, list[tuple[datetime, float, float, float, bool]]] = {}
    for entry in sorted(entries, key=lambda entry: entry.date):
        date = datetime.fromisoformat(entry.date)
        for metric, numbers in pooled_values(entry).items():
            if None not in numbers:
                value, low, high = (float(x) for x in numbers if x is not None)
                drifted = any(name.split(" ")[-1] == metric for name in entry.drifted)
                points.setdefault(metric, []).append((date, value, low, high, drifted))
    return [
        MetricHistory(metric, DIRECTIONS[metric_of(metric).higher_is_better], *map(tuple, zip(*of_metric, strict=True)))
        for metric, of_metric in points.items()
    ]


def pooled_values(entry: Entry) -> dict[str, list[float | None]]:
    """Return values of the docs of all tasks, or of the only one."""
    return entry.values.get(POOLED) or next(iter(entry.values.values()), {})


def write_picture(path: Path, entries: Sequence[Entry]) -> None:
    """Write the history's picture: .svg, .png, .pdf, or .html with a table of the runs."""
    form = path.suffix.removeprefix(".")
    if form not in ("svg", "png", "pdf", "html"):
        raise UserError(f"{path}: a picture is a file .svg, .png, .pdf or .html")
    panels = prepare_history(entries)
    if form != "html":
        write_whole(path, draw_history(panels, cast(Form, form)))
        return
    from markupsafe import Markup

    picture = Markup(draw_history(panels, "inline").decode())
    page = render_page(TEMPLATE, title="Calibration over time", entries=entries, picture=picture, values=pooled_values)
    write_whole(path, page)
