"""What recalibration would do: a cross-fitted map, and the tokens at other temperatures."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.metrics.validation import FloatArray
from lm_eval_calibration.plots import Reliability, prepare_reliability
from lm_eval_calibration.recalibration import (
    Change,
    RecalibrationWarning,
    Temperature,
    TokenGrid,
    cross_fit,
    cross_fitted_changes,
)
from lm_eval_calibration.recalibration.by_group import MIN_FIT_DOCS
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.columns import columns, metric_of


class Recalibrated(NamedTuple):
    """What a map that was fitted on other docs does.

    The method is ``temperature`` where docs have choices, ``platt`` for generated answers. ``temperature`` is the mean
    of the folds', above 1 where the model was too sure; nan for Platt scaling. ``notes`` are the fit's warnings.
    """

    method: str
    temperature: float
    changes: tuple[Change, ...]
    reliability: Reliability
    confidence: FloatArray
    notes: tuple[str, ...] = ()


class AtTemperature(NamedTuple):
    """The tokens of the gold answers when every next-token distribution is taken at one temperature T.

    ``nll`` is the mean of a gold token, in nats. ``full_ece`` falls to 0 where no entry is left above 1/n_bins, so it
    is no guide to T by itself. ``acc`` changes where choices of several tokens change their order.
    """

    temperature: float
    nll: float
    full_ece: float
    acc: float


def recalibrated(run: Run, tasks: Sequence[str]) -> Recalibrated | None:
    """Return what a map fitted on other folds does; None where it can't be fitted."""
    try:
        docs = run.recalibration_docs(tasks)
    except ValueError:  # docs with choices, and docs without
        return None
    method = "temperature" if docs.confidence is None else "platt"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crossed = cross_fit(method, docs)
    notes = tuple(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, RecalibrationWarning)))
    if len(docs) - np.bincount(crossed.fold).max() < MIN_FIT_DOCS:
        return None
    names = [name for name in columns("report: recalibration") if not metric_of(name).by_order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # undefined values are shown as such
        changes = cross_fitted_changes(method, docs, crossed, names=names, n_bins=run.n_bins)
    maps: list[Any] = [one for fold in crossed.maps.values() for one in fold.maps.values()]
    temperatures = [one.temperature or math.nan for one in maps if isinstance(one, Temperature)]
    temperature = float(np.mean(temperatures)) if temperatures else math.nan
    after = prepare_reliability(crossed.forecasts.confidence, crossed.forecasts.correct, n_bins=run.n_bins)
    return Recalibrated(method, temperature, tuple(changes), after, crossed.forecasts.confidence, notes)


def at_temperatures(run: Run) -> tuple[AtTemperature, ...]:
    """Return what the grid of temperatures shows of all docs; nothing where not all have it (option temperatures)."""
    first = next(iter(run.records), None)
    if getattr(first, "temperatures", None) is None:
        return ()
    try:
        grid = TokenGrid.of(run.records)
    except ValueError:  # some have none, or another grid
        return ()
    curves = (grid.temperatures, grid.nll(), grid.full_ece(), grid.acc())
    return tuple(AtTemperature(*map(float, row)) for row in zip(*curves, strict=True))
