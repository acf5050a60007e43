"""A doc's tokens at a grid of temperatures, for recalibration of the whole vocabulary after the run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import TEMPERATURES, TokenScores
from lm_eval_calibration.records import TokenTemperatures


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
