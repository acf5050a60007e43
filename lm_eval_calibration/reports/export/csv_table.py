"""One line for each task and metric, for spreadsheets and data frames."""

import csv
import io
import math
from collections.abc import Iterable

from lm_eval_calibration.reports.escaping import csv_cell
from lm_eval_calibration.reports.export.values import Value
from lm_eval_calibration.results import Run

HEADS: tuple[str, ...] = ("model", "task", "version", "shots", "metric", "value", "stderr", "low", "high")
HEADS += ("null_mean", "null_upper", "p_value", "docs", "n_bins", "reason")


def csv_table(run: Run, found: Iterable[Value]) -> str:
    """Return the table; what is undefined or does not apply is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADS)
    configuration = run.configuration
    for value in found:
        m, null = value.measured, value.null
        about = [run.model, value.scope, str(configuration.task_versions.get(value.scope, ""))]
        shots = configuration.num_fewshot.get(value.tasks[0], "")
        numbers = [
            m.value,
            m.stderr,
            m.low,
            m.high,
            *((null.mean, null.upper, null.p_value) if null else [math.nan] * 3),
        ]
        cells = ["" if math.isnan(x) else repr(float(x)) for x in numbers]
        row = [*map(csv_cell, about), shots, value.metric, *cells, m.n_docs, run.n_bins, csv_cell(m.reason or "")]
        writer.writerow(row)
    return buffer.getvalue()
