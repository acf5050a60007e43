"""Every metric within each stratum of the docs: subject, age group, site, language."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.recalibration.docs import Forecasts
from lm_eval_calibration.recalibration.resampled import computable


class StratumMetric(NamedTuple):
    """A metric of one stratum's docs, pooled.

    Attributes:
        stratum: its name.
        n_docs: its number of docs.
        name: of the metric.
        value: over these docs.
        stderr: its standard error; nan for one doc.
    """

    stratum: str
    n_docs: int
    name: str
    value: float
    stderr: float


def metrics_by_stratum(
    forecasts: Forecasts, strata: NDArray[np.str_], *, n_bins: int = 10, names: tuple[str, ...] | None = None
) -> list[StratumMetric]:
    """Compute accuracy and every metric of each stratum.

    Args:
        forecasts: of N docs.
        strata: [N] the stratum of each doc.
        n_bins: bins of the binned metrics.
        names: the metrics; by default all that the forecasts have.
    """
    found = []
    for stratum in np.unique(strata):
        part = forecasts.take(np.flatnonzero(strata == stratum))
        accuracy, n_docs = float(part.correct.mean()), len(part.labels)
        stderr = (accuracy * (1 - accuracy) / (n_docs - 1)) ** 0.5 if n_docs > 1 else float("nan")
        found.append(StratumMetric(str(stratum), n_docs, "acc", accuracy, stderr))
        for metric in CATALOG.values():
            arguments = part.arguments(metric)
            if arguments is None or not computable(metric, part) or (names is not None and metric.name not in names):
                continue
            options = {"n_bins": n_bins} if metric.takes_n_bins else {}
            value, stderr = (float(function(*arguments, **options)) for function in (metric.value, metric.stderr))
            found.append(StratumMetric(str(stratum), n_docs, metric.name, value, stderr))
    return found
