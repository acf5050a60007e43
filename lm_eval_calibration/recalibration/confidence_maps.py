"""Maps of the answer's confidence, fitted on whether answers were right: Platt, isotonic, beta, histogram binning.

They take ``confidence`` [N], numbers in [0, 1], and ``correct`` [N], 0 or 1 (bool too), and return a confidence. What
the answer is stays as it was, and the other choices have no probability.
"""

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.validation import FloatArray, check_probability_vector, check_top_label
from lm_eval_calibration.recalibration.recalibrator import Recalibrator, Takes, floats, warn

SMALLEST = float(np.finfo(np.float64).eps)
"""Confidences are kept this far from 0 and 1 before a logarithm is taken."""


@dataclass
class Platt(Recalibrator):
    """Platt scaling: c -> sigmoid(slope * logit(c) + intercept).

    Fitted by maximum likelihood to Platt's targets, (n_right + 1) / (n_right + 2) and 1 / (n_wrong + 2), which keep
    it finite where confidence separates right from wrong docs, and where all docs are right (a constant then).

    Source: Platt 1999.
    """

    method: ClassVar[str] = "platt"
    takes: ClassVar[Takes] = "confidence"

    slope: float | None = None
    intercept: float | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> Self:
        """Fit slope and intercept to (confidence, correct)."""
        from scipy.optimize import minimize

        conf, hit = check_top_label(inputs, targets)
        _warn_of_one_class(hit)
        right, wrong = hit.sum(), len(hit) - hit.sum()
        x, target = logit_of(conf), np.where(hit == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
        if x.min() == x.max():
            warn("all confidences are equal: platt maps all of them to one value")
            self.slope, self.intercept = 0.0, float(logit(target.mean()))
            return self
        features = np.stack([x, np.ones(len(x))])

        def loss(weights: FloatArray) -> tuple[float, FloatArray]:
            z = weights @ features
            return float(np.mean(np.logaddexp(0, z) - target * z)), features @ (expit(z) - target) / len(x)

        def hessian(weights: FloatArray) -> Any:
            p = expit(weights @ features)
            return (features * p * (1 - p)) @ features.T / len(x)

        start = np.array([0.0, logit(target.mean())])
        best = minimize(loss, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-10})
        self.slope, self.intercept = floats(best.x)
        return self

    def predict_proba(self, inputs: ArrayLike) -> FloatArray:
        """Return the recalibrated confidence, [N]."""
        slope, intercept = self._parameters()
        return np.asarray(expit(slope * logit_of(check_probability_vector("confidence", inputs)) + intercept))

    @classmethod
    def identity(cls) -> Self:
        """Return slope 1, intercept 0."""
        return cls(1.0, 0.0)


@dataclass
class Isotonic(Recalibrator):
    """Isotonic regression of correct on confidence: the best rising step curve, linear between its knots.

    Beyond the confidences it was fitted on it stays at the nearest value.

    Attributes:
        knots: confidences, rising.
        values: accuracies there, never falling.

    Source: Zadrozny & Elkan 2002.
    """

    method: ClassVar[str] = "isotonic"
    takes: ClassVar[Takes] = "confidence"

    knots: tuple[float, ...] | None = None
    values: tuple[float, ...] | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> Self:
        """Fit the curve to (confidence, correct)."""
        from sklearn.isotonic import IsotonicRegression

        conf, hit = check_top_label(inputs, targets)
        _warn_of_one_class(hit)
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(conf, hit)
        self.knots, self.values = floats(curve.X_thresholds_), floats(curve.y_thresholds_)
        return self

    def predict_proba(self, inputs: ArrayLike) -> FloatArray:
        """Return the recalibrated confidence, [N]."""
        knots, values = self._parameters()
        return np.asarray(np.interp(check_probability_vector("confidence", inputs), knots, values))

    @classmethod
    def identity(cls) -> Self:
        """Return the diagonal."""
        return cls((0.0, 1.0), (0.0, 1.0))


@dataclass
class Beta(Recalibrator):
    """Beta calibration: c -> sigmoid(a ln c - b ln(1 - c) + intercept), a and b at least 0.

    Fitting needs the package betacal; a fitted map does not. Where all docs are right, or all wrong, the map is the
    identity, with a RecalibrationWarning.

    Source: Kull, Silva Filho & Flach 2017.
    """

    method: ClassVar[str] = "beta"
    takes: ClassVar[Takes] = "confidence"

    a: float | None = None
    b: float | None = None
    intercept: float | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> Self:
        """Fit a, b and the intercept to (confidence, correct).

        Raises:
            ImportError: betacal is not installed.
        """
        try:
            betacal: Any = import_module("betacal")
        except ImportError as error:
            raise ImportError("beta calibration needs the package betacal: pip install betacal") from error
        conf, hit = check_top_label(inputs, targets)
        if hit.min() == hit.max():
            warn(f"beta left as the identity: {_one_class(hit)}")
            self.a, self.b, self.intercept = 1.0, 1.0, 0.0
            return self
        with warnings.catch_warnings():  # betacal turns all warnings off, for good
            fitted = betacal.BetaCalibration("abm").fit(conf, hit).calibrator_
        self.a, self.b = floats(fitted.map_[:2])
        (self.intercept,) = floats(fitted.lr_.intercept_)
        return self

    def predict_proba(self, inputs: ArrayLike) -> FloatArray:
        """Return the recalibrated confidence, [N]."""
        a, b, intercept = self._parameters()
        conf = np.clip(check_probability_vector("confidence", inputs), SMALLEST, 1 - SMALLEST)
        return np.asarray(expit(a * np.log(conf) - b * np.log1p(-conf) + intercept))

    @classmethod
    def identity(cls) -> Self:
        """Return a = b = 1, intercept 0."""
        return cls(1.0, 1.0, 0.0)


@dataclass
class HistogramBinning(Recalibrator):
    """Histogram binning: every confidence becomes the accuracy of its equal-width bin, 10 bins.

    A bin that held no doc is not known: its confidences stay as they are.

    Attributes:
        accuracies: of the bins, None where no doc was.

    Source: Zadrozny & Elkan 2001, with the equal-width bins of ``ece``.
    """

    method: ClassVar[str] = "histogram"
    takes: ClassVar[Takes] = "confidence"

    accuracies: tuple[float | None, ...] | None = None

    n_bins: ClassVar[int] = 10

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> Self:
        """Take the accuracy of each bin of (confidence, correct)."""
        conf, hit = check_top_label(inputs, targets)
        _warn_of_one_class(hit)
        index = bin_index(conf, self.n_bins)
        counts = np.bincount(index, minlength=self.n_bins)
        right = bin_sums(index, hit, self.n_bins)
        self.accuracies = tuple(float(r / n) if n else None for r, n in zip(right, counts, strict=True))
        return self

    def predict_proba(self, inputs: ArrayLike) -> FloatArray:
        """Return the recalibrated confidence, [N]."""
        (known,) = self._parameters()
        conf = check_probability_vector("confidence", inputs)
        accuracies = np.array(known, dtype=np.float64)  # None becomes nan
        of_bin = accuracies[bin_index(conf, len(accuracies))]
        return np.asarray(np.where(np.isnan(of_bin), conf, of_bin))

    @classmethod
    def identity(cls) -> Self:
        """Return bins of which none is known."""
        return cls((None,) * cls.n_bins)


def logit_of(confidence: FloatArray) -> FloatArray:
    """Logit of confidences, kept a little away from 0 and 1."""
    return np.asarray(logit(np.clip(confidence, SMALLEST, 1 - SMALLEST)))


def _one_class(hit: FloatArray) -> str:
    return f"every doc it was to be fitted on is {'right' if hit[0] else 'wrong'}"


def _warn_of_one_class(hit: FloatArray) -> None:
    if hit.min() == hit.max():
        warn(f"the map is a constant, of few docs perhaps: {_one_class(hit)}")
