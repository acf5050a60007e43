"""Recalibration: maps fitted on some docs and tested on others, with the metrics before and after.

Arrays in, arrays out; needs what :mod:`lm_eval_calibration.metrics` needs (``beta`` also the package betacal).

The maps are scikit-learn-style, ``fit(inputs, targets)`` and ``predict_proba(inputs)``. :class:`Temperature` maps the
log-likelihoods of all choices to a distribution; the others map the confidence of the answer. :func:`cross_fit` tests
them on docs they never saw.
"""

from lm_eval_calibration.recalibration.before_after import Change, before_after, cross_fitted_changes
from lm_eval_calibration.recalibration.by_group import METHODS, FittedOnTheseDocsError, MapByGroup
from lm_eval_calibration.recalibration.confidence_maps import Beta, HistogramBinning, Isotonic, Platt
from lm_eval_calibration.recalibration.cross_fitting import CrossFit, cross_fit
from lm_eval_calibration.recalibration.docs import Docs, Forecasts
from lm_eval_calibration.recalibration.domains import Domain, compare_domains
from lm_eval_calibration.recalibration.folds import fold_of
from lm_eval_calibration.recalibration.multicalibrated import Grouped, Multicalibrated
from lm_eval_calibration.recalibration.operating_points import (
    OperatingPoint,
    choose_threshold,
    cross_fit_operating_point,
    evaluate_threshold,
)
from lm_eval_calibration.recalibration.recalibrator import RecalibrationWarning, Recalibrator
from lm_eval_calibration.recalibration.temperature import Temperature
from lm_eval_calibration.recalibration.token_temperature import (
    TokenCrossFit,
    TokenGrid,
    TokenTemperature,
    cross_fit_tokens,
)

__all__ = [
    "METHODS",
    "Beta",
    "Change",
    "CrossFit",
    "Docs",
    "Domain",
    "FittedOnTheseDocsError",
    "Forecasts",
    "Grouped",
    "HistogramBinning",
    "Isotonic",
    "MapByGroup",
    "Multicalibrated",
    "OperatingPoint",
    "Platt",
    "RecalibrationWarning",
    "Recalibrator",
    "Temperature",
    "TokenCrossFit",
    "TokenGrid",
    "TokenTemperature",
    "before_after",
    "choose_threshold",
    "compare_domains",
    "cross_fit",
    "cross_fit_operating_point",
    "cross_fit_tokens",
    "cross_fitted_changes",
    "evaluate_threshold",
    "fold_of",
]
