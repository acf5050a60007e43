"""Temperature scaling in the table: the docs as they would be, each by a temperature fitted on other docs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lm_eval_calibration.recalibration import Docs, Temperature, cross_fit
from lm_eval_calibration.records import Record


def at_fitted_temperatures(records: Sequence[Record]) -> list[Record]:
    """Return the records with log-likelihoods divided by the temperature that was fitted on the other folds of docs.

    Folds are of docs by their hash, so a doc's fold is the same in a task and in a pooled group; the temperature is
    the group's own. Docs with a broken gold label stay as they are.
    """
    sound = [record for record in records if record.gold is not None]
    docs = Docs.of(
        [record.log_likelihoods for record in sound],
        [record.gold for record in sound if record.gold is not None],
        [record.doc_hash for record in sound],
    )
    crossed = cross_fit("temperature", docs)
    temperatures = {fold: _temperature(fold_map.maps[""]) for fold, fold_map in crossed.maps.items()}
    return [
        replace(record, log_likelihoods=tuple(value / temperatures[fold] for value in record.log_likelihoods))
        for record, fold in zip(sound, crossed.fold.tolist(), strict=True)
    ] + [record for record in records if record.gold is None]


def fitted_temperature(probs: Any, labels: Any) -> float:
    """Return the temperature of all these docs: what a map for other docs would have, nothing is judged by it."""
    with np.errstate(divide="ignore"):
        return _temperature(Temperature().fit([np.log(row) for row in probs], labels))


def _temperature(fitted: Any) -> float:
    return float(fitted.temperature)
