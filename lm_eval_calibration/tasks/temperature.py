"""Temperature scaling in the table: the docs as they would be, each by a temperature fitted on other docs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import TEMPERATURES, TokenScores
from lm_eval_calibration.recalibration import Docs, Temperature, cross_fit
from lm_eval_calibration.records import ChoicesRecord, TokenTemperatures


def at_fitted_temperatures(records: Sequence[Any]) -> list[ChoicesRecord]:
    """Return the records with log-likelihoods divided by the temperature that was fitted on the other folds of docs.

    Folds are of docs by their hash, so a doc's fold is the same in a task and in a pooled group; the temperature is
    the group's own. Docs with a broken gold label stay as they are.
    """
    sound = [record for record in records if record.gold is not None]
    if not sound:
        return list(records)
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


def on_grid(answers: Sequence[Any], gold: int, n_bins: int) -> TokenTemperatures | None:
    """Return a doc at every temperature of the grid, where the backend gave the grid of each of its choices."""
    of_choices = [answer.temperatures for answer in answers if isinstance(answer, TokenScores)]
    scores = [grid for grid in of_choices if grid is not None]
    if len(scores) < len(answers):
        return None
    of_gold, n_tokens, n_temperatures = scores[gold], len(scores[gold].targets), len(TEMPERATURES)
    large = [probs for index in range(n_temperatures) for probs in of_gold.large_probs(index)]
    gaps = metrics.gap_sums_of_positions(
        np.concatenate(large), [len(probs) for probs in large], np.exp(of_gold.log_probs).T.ravel(), n_bins=n_bins
    )
    sums = gaps.reshape(n_temperatures, n_tokens, n_bins).sum(axis=1)
    log_likelihoods = tuple(tuple(grid.log_probs.sum(axis=0).tolist()) for grid in scores)
    return TokenTemperatures(TEMPERATURES, log_likelihoods, n_bins, tuple(map(tuple, sums.tolist())))


def _temperature(fitted: Any) -> float:
    return float(fitted.temperature)
