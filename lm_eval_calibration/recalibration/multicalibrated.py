"""A map that is calibrated within groups of docs, which may overlap: every field's, and every pair of fields'."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.special import expit

from lm_eval_calibration.metrics.binning import bin_index
from lm_eval_calibration.metrics.fields import FEWEST_DOCS, Fields, Key, groups_of
from lm_eval_calibration.metrics.validation import FloatArray, IntArray, check_probability_vector, check_top_label
from lm_eval_calibration.recalibration.confidence_maps import logit_of
from lm_eval_calibration.recalibration.recalibrator import Recalibrator, Takes

ALPHA = 0.05
"""Probability with which a calibrated model's confidence is changed at all, at most."""

MOST_PATCHES = 100
N_BINS = 10
LARGEST_SHIFT = 50.0


class Grouped(NamedTuple):
    """What the map takes: [N] confidence, and the fields of the same docs."""

    confidence: Any
    fields: Fields


class _Cell(NamedTuple):
    """A group, or a bin of it: what it is, its rows, and how unlikely its error is of a calibrated model."""

    group: Key
    low: float
    high: float
    rows: IntArray
    p_value: float


@dataclass
class Multicalibrated(Recalibrator):
    """Patches, each a shift of the logit of the confidence of a group's docs, all or those in a bin: one after another.

    While some group, or equal-width bin of a group, has an error that a calibrated model would show in fewer than 5% of
    samples (Bernstein's inequality, over all groups and bins: p = 2 exp(-S^2 / 2 (V + |S| / 3)) with S = sum of
    correct - c and V = sum of c (1 - c)), the least likely of them is patched so that the mean confidence of its docs
    is (right + c) / (n + 1), c their mean confidence before. So confidence that is calibrated stays as it is in 95% of
    samples, of docs that were drawn independently.

    Attributes:
        fields: whose groups there are.
        patches: in their order: pairs of field and value that a doc must have (none: every doc), the confidences from
            and below which (up to 1 with 1), as patched so far, and the shift.

    Source: Hebert-Johnson et al. 2018, arXiv:1711.08513; for language models Detommaso et al. 2024, arXiv:2404.04689.
    """

    method: ClassVar[str] = "multicalibrated"
    takes: ClassVar[Takes] = "groups"

    fields: tuple[str, ...] | None = None
    patches: tuple[Any, ...] | None = None

    def fit(self, inputs: Grouped, targets: Any) -> Self:
        """Fit patches to ((confidence, fields), correct)."""
        conf, hit = check_top_label(inputs.confidence, targets)
        groups: dict[Key, IntArray] = {(): np.arange(len(conf)), **groups_of(inputs.fields)}
        patches: list[list[Any]] = []
        while len(patches) < MOST_PATCHES and (cell := _least_likely(groups, conf, hit)) is not None:
            shift = _shift(conf[cell.rows], hit[cell.rows])
            conf[cell.rows] = expit(logit_of(conf[cell.rows]) + shift)
            patches.append([list(map(list, cell.group)), cell.low, cell.high, shift])
        self.fields, self.patches = tuple(inputs.fields), tuple(patches)
        return self

    def predict_proba(self, inputs: Grouped) -> FloatArray:
        """Return the recalibrated confidence, [N]; ValueError where a field is missing."""
        names, patches = self._parameters()
        conf = check_probability_vector("confidence", inputs.confidence).copy()
        if missing := [name for name in names if name not in inputs.fields]:
            raise ValueError(f"the map needs {missing[0]} of the docs")
        for group, low, high, shift in patches:
            member = (conf >= low) & ((conf < high) | (high == 1))
            for name, value in group:
                member &= inputs.fields[name].has(value)
            conf[member] = expit(logit_of(conf[member]) + shift)
        return conf

    @classmethod
    def identity(cls) -> Self:
        """Return no patches."""
        return cls((), ())


def _least_likely(groups: dict[Key, IntArray], conf: FloatArray, hit: FloatArray) -> _Cell | None:
    """The group or bin whose error a calibrated model is least likely to show; None where all are likely enough."""
    error, spread, index = hit - conf, conf * (1 - conf), bin_index(conf, N_BINS)
    best, n_cells = None, 0
    for group, rows in groups.items():
        bins = index[rows]
        sums = [np.bincount(bins, of_docs[rows], N_BINS) for of_docs in (error, spread)]
        known = np.bincount(bins, minlength=N_BINS) >= FEWEST_DOCS
        s, v = (np.append(of_bins.sum(), of_bins[known]) for of_bins in sums)
        p_values = 2 * np.exp(-(s**2) / (2 * (v + np.abs(s) / 3) + 1e-300))
        n_cells += len(s)
        least = int(np.argmin(p_values))
        if best is None or p_values[least] < best.p_value:
            b = None if least == 0 else int(np.flatnonzero(known)[least - 1])
            low, high = (0.0, 1.0) if b is None else (b / N_BINS, (b + 1) / N_BINS)
            best = _Cell(group, low, high, rows if b is None else rows[bins == b], float(p_values[least]))
    return best if best is not None and best.p_value * n_cells <= ALPHA else None


def _shift(conf: FloatArray, hit: FloatArray) -> float:
    """By how much logits are shifted so that their mean probability is (right + mean confidence) / (n + 1)."""
    from scipy.optimize import brentq

    x, wanted = logit_of(conf), (float(hit.sum()) + float(conf.mean())) / (len(conf) + 1)

    def gap(shift: float) -> float:
        return float(expit(x + shift).mean()) - wanted

    return float(brentq(gap, -LARGEST_SHIFT, LARGEST_SHIFT))
