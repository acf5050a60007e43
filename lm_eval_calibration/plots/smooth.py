"""Smooth reliability curves: accuracy at each confidence without bins, with bands, and the difference of two of them.

A curve is a local linear regression of correct on confidence (LOESS of degree 1 with a Gaussian kernel), so that of a
calibrated model is the diagonal in expectation, at the ends too. Source: Cleveland 1979; Fan & Gijbels 1996, 2.3.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from lm_eval_calibration.metrics.validation import check_top_label

Array = NDArray[np.float64]

POINTS = 101
"""Confidences at which a curve is computed: 0, 0.01 ... 1."""

FEWEST = 10
"""Docs that a point rests on, effectively: where there are fewer it is left out."""

NARROWEST = 0.03
"""Of the kernel: confidences that pile up at 0 or 1 say little of those beside them."""

Z = float(ndtri(0.975))


class Smooth(NamedTuple):
    """A curve at some confidences, with the ends of pointwise 95% intervals.

    Attributes:
        at: [P] confidences, rising; only those near which there are docs.
        value: [P] accuracy there, 0 to 1, or a difference of accuracies, -1 to 1.
        low: [P] lower ends.
        high: [P] upper ends.
    """

    at: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def prepare_smooth(confidence: ArrayLike, correct: ArrayLike, *, cluster: Any = None) -> Smooth:
    """Return accuracy against confidence as a smooth curve.

    The band is Wilson's interval with the effective number of docs, 1 / (sum of squared weights). It is of the smoothed
    curve, which is flatter than the true one where that bends.

    Args:
        confidence: [N] confidence of each doc, in [0, 1].
        correct: [N] 0 or 1.
        cluster: [N] what each doc was drawn with; None where each was by itself.

    Raises:
        ValueError: bad input; the message names the row and the value.
    """
    conf, hit = check_top_label(confidence, correct)
    width, rows = bandwidth(conf), []
    for at in np.linspace(0, 1, POINTS):
        weights = _weights(conf, at, width)
        n = 0.0 if weights is None else 1 / float(np.sum(_summed(weights, cluster) ** 2))
        if weights is not None and n >= FEWEST:
            value = float(np.clip(weights @ hit, 0, 1))
            middle, half = (value + Z**2 / 2 / n), Z * np.sqrt(value * (1 - value) / n + (Z / 2 / n) ** 2)
            ends = ((middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n))
            rows.append((float(at), value, max(0.0, float(ends[0])), min(1.0, float(ends[1]))))
    return _curve(rows)


def prepare_difference(
    a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike], *, paired: bool, cluster: Any = None
) -> Smooth:
    """Return accuracy of b less accuracy of a at the same confidence, as a smooth curve.

    The band is +- 1.96 standard errors, from the residuals of all docs (the sandwich estimator); of the same docs the
    residuals of a and b are subtracted doc by doc first.

    Args:
        a: confidence and correct of each doc, [N] both.
        b: of the other model, [M]; of the same docs in the same order where paired.
        paired: whether the docs are the same.
        cluster: [N] what each pair of docs was drawn with; only where paired.

    Raises:
        ValueError: bad input, or paired docs of unequal number.
    """
    (conf_a, hit_a), (conf_b, hit_b) = check_top_label(*a), check_top_label(*b)
    if paired and len(conf_a) != len(conf_b):
        raise ValueError(f"paired docs: {len(conf_a)} of a and {len(conf_b)} of b")
    widths, rows = (bandwidth(conf_a), bandwidth(conf_b)), []
    for at in np.linspace(0, 1, POINTS):
        one, other = _weights(conf_a, at, widths[0]), _weights(conf_b, at, widths[1])
        if one is None or other is None or min(1 / np.sum(one**2), 1 / np.sum(other**2)) < FEWEST:
            continue
        values = float(one @ hit_a), float(other @ hit_b)
        parts = one * (hit_a - values[0]), other * (hit_b - values[1])
        residuals = [parts[1] - parts[0]] if paired else list(parts)
        half = Z * float(np.sqrt(sum(np.sum(_summed(part, cluster if paired else None) ** 2) for part in residuals)))
        difference = values[1] - values[0]
        rows.append((float(at), difference, max(-1.0, difference - half), min(1.0, difference + half)))
    return _curve(rows)


def bandwidth(confidence: Array) -> float:
    """Return the standard deviation of the kernel: 1.06 min(sd, IQR / 1.34) N^(-1/5), and 0.03 at least.

    Source: Silverman 1986, 3.4.2.
    """
    low, high = np.quantile(confidence, [0.25, 0.75])
    spread = [part for part in (float(np.std(confidence)), float(high - low) / 1.34) if part > 0]
    return float(max(NARROWEST, 1.06 * min(spread, default=0.0) * len(confidence) ** -0.2))


def _weights(confidence: Array, at: float, width: float) -> Array | None:
    """[N] by which a local linear regression weighs the outcomes; None out of their range, or where all are equal."""
    if not confidence.min() - width <= at <= confidence.max() + width:
        return None
    offset = confidence - at
    kernel = np.exp(-0.5 * (offset / width) ** 2)
    first, second = float(kernel @ offset), float(kernel @ offset**2)
    scale = float(np.sum(kernel)) * second - first**2
    if scale <= 1e-9 * float(np.sum(kernel)) ** 2 * width**2:
        return None
    weights: Array = kernel * (second - first * offset) / scale
    return weights


def _summed(values: Array, cluster: Any) -> Array:
    """Values added up within clusters."""
    if cluster is None:
        return values
    _, index = np.unique(cluster, return_inverse=True)
    return np.asarray(np.bincount(index, weights=values), dtype=np.float64)


def _curve(rows: list[tuple[float, float, float, float]]) -> Smooth:
    return Smooth(*map(tuple, zip(*rows, strict=True))) if rows else Smooth((), (), (), ())
