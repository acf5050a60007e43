"""The metrics of the table: those of the docs as asked, and the same metrics of the docs seen otherwise.

``<metric>_norm`` is computed from log-likelihoods per character (what ``acc_norm`` chooses by), ``<metric>_permuted``
from choice probabilities averaged over several orders of the choices. Names of their own, so that they are never
mixed with the metrics of ``acc``.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lm_eval_calibration.columns import Doc
from lm_eval_calibration.metrics import CATALOG, Metric
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks.options import Options

NORM, PERMUTED = "_norm", "_permuted"

_VIEWS: dict[str, Callable[[Record], Record]] = {NORM: Record.length_normalized, PERMUTED: Record.permuted}

ORDER_METRICS = {"acc_permuted": True, "position_spread": False, "answer_changes": False}
"""Means over docs that ``permute`` adds, and whether higher is better."""


class TableMetric(NamedTuple):
    """A metric under the name that the table shows, and how it sees a doc's record (None: as it is)."""

    metric: Metric
    view: Callable[[Record], Doc] | None = None


def _seen(suffix: str) -> dict[str, TableMetric]:
    of_choices = [metric for metric in CATALOG.values() if metric.kind in ("top_label", "choices")]
    names = {f"{metric.name}{suffix}": metric for metric in of_choices}
    return {name: TableMetric(metric._replace(name=name), _VIEWS[suffix]) for name, metric in names.items()}


TABLE = {
    **{name: TableMetric(metric) for name, metric in CATALOG.items()},
    **_seen(NORM),
    **_seen(PERMUTED),
}
"""Every metric that a table can show, by name."""


def suffixes(options: Options) -> tuple[str, ...]:
    """Return the suffixes of the views that a task's options ask for."""
    return (NORM,) * (options.confidence == "length_normalized") + (PERMUTED,) * (options.permute > 0)


def with_views(names: Iterable[str], options: Options) -> list[str]:
    """Return the metrics, and after them the same under every view that the options ask for."""
    plain = list(names)
    return [*plain, *(name + suffix for suffix in suffixes(options) for name in plain if name + suffix in TABLE)]
