"""Proper scores taken apart: what recalibration would gain, and how well the model tells docs apart."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.uncertainty.resampling import bootstrap_estimates, spread
from lm_eval_calibration.metrics.validation import (
    FloatArray,
    Probs,
    check_choices,
    check_positive_integer,
    check_top_label,
    undefined,
)


class CorpDecomposition(NamedTuple):
    """The three parts of the Brier score: miscalibration - discrimination + uncertainty.

    Attributes:
        miscalibration: What recalibration would gain, 0 (best) to 1.
        discrimination: What the recalibrated confidence gains over always saying the accuracy, at least 0.
        uncertainty: a (1 - a), the Brier score of always saying the accuracy a; no merit of the model.
    """

    miscalibration: float
    discrimination: float
    uncertainty: float


class NllDecomposition(NamedTuple):
    """The two parts of the log loss: nll = calibration + refinement.

    Attributes:
        calibration: What the best temperature gains on these docs, in nats, at least 0.
        refinement: What is left, in nats: how well the model tells choices apart.
        temperature: That temperature; above 1 the model is overconfident.
    """

    calibration: float
    refinement: float
    temperature: float


def corp_decomposition(confidence: ArrayLike, correct: ArrayLike) -> CorpDecomposition:
    """CORP decomposition of ``brier_top_label`` by isotonic regression x of correct on confidence.

    miscalibration = S(c) - S(x), discrimination = S(a) - S(x), uncertainty = S(a), where S is the mean
    squared distance from correct, and a the accuracy. Then
    brier_top_label = miscalibration - discrimination + uncertainty.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1.
    Returns the three parts, squared probabilities, each at least 0. Raises ValueError for bad input, naming the row
    and the value.
    Source: Dimitriadis, Gneiting & Jordan 2021, arXiv:2008.03033.
    """
    return CorpDecomposition(*_corp(*check_top_label(confidence, correct)))


def corp_decomposition_stderr(
    confidence: ArrayLike, correct: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> CorpDecomposition:
    """Standard errors of the parts of :func:`corp_decomposition`: bootstrap over docs; nan for one doc."""
    conf, hit = check_top_label(confidence, correct)
    check_positive_integer("draws", draws, at_least=2)
    estimates = bootstrap_estimates(_corp, conf, hit, draws=draws, seed=seed)
    return CorpDecomposition(*(spread(part, n_docs=len(conf)) for part in estimates.T))


def nll_decomposition(probs: Probs, labels: ArrayLike) -> NllDecomposition:
    """Parts of ``nll``: refinement = min over T of the nll of p^(1/T), renormalised; calibration is the rest.

    The temperature is fitted on the docs that it is tested on: on calibrated docs ``calibration`` is 1 / (2 N)
    on average, not 0. It is a description of these docs; what a temperature gains on others is for
    cross-fitting to say.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice.
    Returns calibration and refinement in nats, and the temperature, within 1e-3 to 1e3. Nan with
    UndefinedMetricWarning where some gold choice has probability 0. Raises ValueError for bad input, naming the row
    and the value.
    Source: Berta, Bach & Jordan 2025, arXiv:2501.19195.
    """
    from scipy.optimize import minimize_scalar

    choices = check_choices(probs, labels)
    gold, n_docs = choices.hits == 1, len(choices.n_choices)
    if np.any(choices.probs[gold] == 0):
        nan = undefined("nll_decomposition is undefined: some gold choice has probability 0")
        return NllDecomposition(nan, nan, nan)
    first = np.cumsum(choices.n_choices) - choices.n_choices
    with np.errstate(divide="ignore"):
        log_probs = np.log(choices.probs)
    relative = log_probs - np.maximum.reduceat(log_probs, first)[choices.doc]  # at most 0: no overflow

    def loss(log_inverse: float) -> float:
        scaled: FloatArray = np.exp(log_inverse) * relative
        total = bin_sums(choices.doc, np.exp(scaled), n_docs)
        return float(np.mean(np.log(total) - scaled[gold]))

    here = float(np.mean(-log_probs[gold]))
    best = minimize_scalar(loss, bounds=(-np.log(1e3), np.log(1e3)), method="bounded", options={"xatol": 1e-9})
    refinement = min(here, float(best.fun))
    return NllDecomposition(here - refinement, refinement, float(np.exp(-best.x)))


def _corp(conf: FloatArray, hit: FloatArray) -> tuple[float, float, float]:
    from sklearn.isotonic import isotonic_regression

    _, group, size = np.unique(conf, return_inverse=True, return_counts=True)
    mean_hit = bin_sums(group, hit, len(size)) / size
    recalibrated = isotonic_regression(mean_hit, sample_weight=size)[group]
    of_model, of_recalibrated, of_accuracy = (
        float(np.mean((forecast - hit) ** 2)) for forecast in (conf, recalibrated, hit.mean())
    )
    return max(0.0, of_model - of_recalibrated), max(0.0, of_accuracy - of_recalibrated), of_accuracy
