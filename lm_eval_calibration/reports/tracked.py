"""What an experiment tracker gets of a run that has just ended: its metrics as a table, and two pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.plots import prepare_reliability, prepare_risk_coverage
from lm_eval_calibration.plots.drawing import plot_reliability, plot_risk_coverage
from lm_eval_calibration.plots.style import save, styled_figure
from lm_eval_calibration.records import RECORD_KEY, Record, metric_arrays
from lm_eval_calibration.results.configuration import common_bins, stated_bins
from lm_eval_calibration.results.measured import measure, metric_of


def tracked(samples: Mapping[str, Sequence[Mapping[str, Any]]], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table (data frame) and pictures (PNG) of all docs of a run, by the names that they are logged under.

    Args:
        samples: the harness's samples, by task.
        results: the harness's results.

    Raises:
        UserError: matplotlib is not installed.
    """
    logged = (Record.from_dict(line[RECORD_KEY]) for task in samples.values() for line in task if RECORD_KEY in line)
    records = list({(record.task, record.doc_id): record for record in logged}.values())  # a doc has a line a filter
    stated = map(stated_bins, results.get("configs", {}).values())
    n_bins = common_bins(n_bins for n_bins in stated if n_bins)
    try:
        confidence, correct = metric_arrays(records, "top_label", n_bins)
    except ValueError:  # a corpus, or nothing of ours
        return {}
    if not len(correct):
        return {}
    return {
        "calibration/metrics": _table(records, n_bins),
        "calibration/reliability": _picture(prepare_reliability(confidence, correct, n_bins=n_bins), plot_reliability),
        "calibration/risk_coverage": _picture(prepare_risk_coverage(confidence, correct), plot_risk_coverage),
    }


def _table(records: Sequence[Record], n_bins: int) -> Any:
    import pandas as pd

    rows = []
    for name in CORE:
        metric = metric_of(name, {record.kind for record in records})
        try:
            found = measure(metric, metric_arrays(records, metric.kind, n_bins), n_bins)
        except ValueError:  # these docs have no arrays of that kind
            continue
        rows.append({"metric": name, "value": found.value, "low": found.low, "high": found.high, "docs": len(records)})
    return pd.DataFrame(rows)


def _picture(data: Any, plot: Any) -> bytes:
    with styled_figure(5.0, 5.0) as (figure, (ax,)):
        plot(data, ax)
        return save(figure, "png", label="")
