"""The rows that a table can show, and those that it does: metrics by confidence sources, as the registries have them.

Every row has a name of its own, a metric's name with a suffix, so that it is never mixed with the metric of ``acc``:
the source of the confidence (``_p_true``, ``_norm`` ...), then ``_low`` and ``_high`` for the ends of the metric's 95%
interval, ``_null`` and ``_p`` for its mean were the model calibrated, and how likely a value as bad then is.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from lm_eval_calibration.metrics.registry import Metric, registered
from lm_eval_calibration.tasks.confidences.registry import requested, sources
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric


def rows(table: Table) -> dict[str, TableMetric]:
    """Return every row that a table can show, by name; not to be changed."""
    return _rows(table, tuple(sources(table)), registered())


@cache
def _rows(table: Table, of: tuple[ConfidenceSource, ...], _: tuple[Metric, ...]) -> dict[str, TableMetric]:
    """As :func:`rows`, once for each state of the registries: thousands of tasks look at it when all are listed."""
    return {name: row for source in of for name, row in source.rows(table).items()}


def shown(names: Sequence[str], options: Any, table: Table) -> list[str]:
    """Return these metrics of the default confidence, and the rows that the options add."""
    found = requested(options, table)
    single = [name for source in found for name in source.single_rows]
    beside = [name for source in found for name in source.shown(names, options, table)]
    return list(dict.fromkeys([*names, *single, *beside]))


def means(table: Table | None = None) -> dict[str, bool]:
    """Return every row of a table, or of any, that is a mean over docs, and whether higher is better."""
    return {name: better for source in sources(table) for name, better in source.means.items()}


def requested_means(options: Any, table: Table) -> dict[str, bool]:
    """Return those that the options add, accuracies first."""
    found = [pair for source in requested(options, table) for pair in source.requested_means(options).items()]
    return dict(sorted(found, key=lambda pair: not pair[1]))
