"""Confidence after temperature scaling: each doc by a temperature fitted on other docs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records.clusters import as_numbers
from lm_eval_calibration.tasks.confidences.option import flag
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric

TEMPERATURE = "temperature"
"""The row that shows the temperature itself."""


class TemperatureScaled(ConfidenceSource):
    """Softmax of log-likelihoods divided by a cross-fitted temperature."""

    name = "temperature"
    tables = ("choices",)
    option = flag("temperature")
    single_rows = (TEMPERATURE,)

    def rows(self, table: Table) -> dict[str, TableMetric]:
        """Return its metrics, and the temperature of all docs."""
        fitted = replace(CATALOG["nll"], name=TEMPERATURE, value=fitted_temperature, higher_is_better=None)
        return {TEMPERATURE: TableMetric(fitted, self, has_stderr=False), **super().rows(table)}

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the records with log-likelihoods divided by a temperature fitted on the other folds of docs.

        Folds are of docs (or clusters) by their hash, so a doc's fold is the same in a task and in a pooled group; the
        temperature is the group's own. Docs with a broken gold label stay as they are.
        """
        from lm_eval_calibration.recalibration import Docs, cross_fit

        sound = [record for record in records if record.correct is not None]
        if not sound:
            return list(records)
        docs = Docs.of(
            [record.log_likelihoods for record in sound],
            [record.gold for record in sound],
            [record.doc_hash for record in sound],
            cluster_ids=as_numbers([record.cluster for record in sound]),
        )
        crossed = cross_fit("temperature", docs)
        temperatures: Any = {fold: fold_map.maps[""] for fold, fold_map in crossed.maps.items()}
        return [
            replace(record, log_likelihoods=tuple(v / temperatures[fold].temperature for v in record.log_likelihoods))
            for record, fold in zip(sound, crossed.fold.tolist(), strict=True)
        ] + [record for record in records if record.correct is None]


def fitted_temperature(probs: Any, labels: Any) -> float:
    """Return the temperature of all these docs: for other docs: no metric of these uses it."""
    from lm_eval_calibration.recalibration import Temperature

    with np.errstate(divide="ignore"):
        fitted: Any = Temperature().fit([np.log(row) for row in probs], labels)
    return float(fitted.temperature)


TEMPERATURE_SCALED = TemperatureScaled()
