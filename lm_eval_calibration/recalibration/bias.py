"""How far a binned error may be too large: what it would be on average if every forecast were right."""

import warnings

import numpy as np

from lm_eval_calibration.metrics import Metric
from lm_eval_calibration.metrics.validation import FloatArray
from lm_eval_calibration.recalibration.docs import Forecasts

BIASED_UPWARD = {
    "ece",
    "ace",
    "ace_top_label",
    "mce",
    "rms_ce",
    "sce",
    "full_ece_choices",
    "ece_debiased",
    "ce_l2_debiased",
    "smece",
}
"""Metrics that are above 0 by chance alone. Noise adds the most where the true error is 0."""

NULL_DRAWS = 50
"""Draws of labels; their mean is known to a few percent."""


def largest_bias(metric: Metric, forecasts: Forecasts, *, n_bins: int, seed: int = 0) -> float:
    """Mean of a metric over labels drawn from the forecasts themselves; 0 for metrics that are not biased."""
    if metric.name not in BIASED_UPWARD:
        return 0.0
    rng, options = np.random.default_rng(seed), {"n_bins": n_bins} if metric.takes_n_bins else {}
    cumulative = None if metric.kind == "top_label" else _cumulative(forecasts)
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once already, of the docs themselves
        for _ in range(NULL_DRAWS):
            drawn = rng.random(len(forecasts.labels))
            if cumulative is None:
                hits = (drawn < forecasts.confidence).astype(np.int64)
                values.append(metric.value(forecasts.confidence, hits, **options))
            else:
                labels = (drawn[:, None] >= cumulative).sum(axis=1)
                values.append(metric.value(forecasts.probs, labels, **options))
    return float(np.mean(values))


def _cumulative(forecasts: Forecasts) -> FloatArray:
    """[N, K] cumulative choice probabilities, without the last choice of each doc: above any number drawn."""
    result = np.full((len(forecasts.labels), max(len(row) for row in forecasts.probs)), np.inf)
    for doc, row in enumerate(forecasts.probs):
        result[doc, : len(row) - 1] = np.cumsum(row)[:-1]
    return result
