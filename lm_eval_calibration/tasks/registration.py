"""Our metrics and aggregations in the harness's registries, under their own names.

Imported by every calibrated task, and by the entry points (``lm_eval.metrics``) that the next release of the harness
discovers: it loads the one of a metric when the metric is named, and finds its aggregation and direction registered
then. Our tasks compute with statistics of their own either way.
"""

from typing import Any

from lm_eval.api.registry import get_aggregation

from lm_eval_calibration.harness.registry import passthrough, register
from lm_eval_calibration.metrics import CORPUS_CATALOG
from lm_eval_calibration.tasks.aggregation import MetricStatistic
from lm_eval_calibration.tasks.token_metrics import TokenStatistic
from lm_eval_calibration.tasks.views import means, rows

METRICS: dict[str, Any] = {}
"""The registered functions by name."""


def register_all() -> None:
    """Register every metric that a table can show."""
    found: dict[str, tuple[Any, bool | None]] = {
        name: (TokenStatistic(metric), metric.higher_is_better) for name, metric in CORPUS_CATALOG.items()
    }
    for name, row in (rows("generation") | rows("choices")).items():  # of the same names with the metric of choices
        found[name] = MetricStatistic.of(row, n_bins=10), row.metric.higher_is_better
    found |= {name: (get_aggregation("mean"), is_better) for name, is_better in means().items()}
    for name, (aggregation, is_better) in found.items():
        if name not in METRICS:
            METRICS[name] = passthrough(name)
            register(name, METRICS[name], aggregation, is_better)


def __getattr__(name: str) -> Any:
    """Resolve the entry points ``registration:<metric>``."""
    if name in METRICS:
        return METRICS[name]
    raise AttributeError(f"no metric named {name!r}")


register_all()
