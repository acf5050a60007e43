"""The log loss taken apart: what recalibration would gain, and what no temperature can.

The Brier score's parts are ``corp_decomposition`` in :mod:`~lm_eval_calibration.metrics.proper_scores`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_calibration.metrics.binning import bin_sums
from lm_eval_calibration.metrics.validation import FloatArray, Probs, check_choices, undefined


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


def nll_decomposition(probs: Probs, labels: ArrayLike) -> NllDecomposition:
    """Parts of ``nll``: refinement = min over T of the nll of p^(1/T), renormalised; calibration is the rest.

    The temperature is fitted on the docs that it is judged on: on calibrated docs ``calibration`` is 1 / (2 N)
    on average, not 0. It is a description of these docs; what a temperature gains on others is for
    cross-fitting to say.

    Args:
        probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1.
        labels: [N] position of the gold choice.

    Returns:
        Calibration and refinement in nats, and the temperature, within 1e-3 to 1e3. Nan with
        UndefinedMetricWarning where some gold choice has probability 0.

    Raises:
        ValueError: Bad input; the message names the row and the value.

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
