"""Classwise calibration of multiple choice: every choice of every doc is a forecast of "this is the answer".

Every function takes ``probs``, an [N, K] array or a list of N vectors whose lengths K_i may differ, and
``labels`` [N], the integer position of the gold choice. A class is a choice position; there are K = max K_i,
and class k counts the docs that have it. ValueError names the first bad row and its value.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from lm_eval_calibration.metrics.binning import bin_index, bin_sums, equal_mass_gaps
from lm_eval_calibration.metrics.registry import metric
from lm_eval_calibration.metrics.uncertainty import gap_vectors, nulls
from lm_eval_calibration.metrics.uncertainty.inversion import inverted_tests, one_forecast
from lm_eval_calibration.metrics.uncertainty.ranges import ranges_stderr, sort_forecasts
from lm_eval_calibration.metrics.uncertainty.resampling import binned_stderr, ratio_stderr
from lm_eval_calibration.metrics.validation import (
    Choices,
    FloatArray,
    IntArray,
    Probs,
    check_choices,
    check_n_bins,
    check_top_label,
)


def means_little(labels: IntArray) -> str | None:
    """Return why ``ace`` of docs with these labels says nothing of the model, if it doesn't."""
    if len(labels) < 2 or np.any(labels != labels[0]):
        return None
    return f"ace means little here: the gold choice of every doc is at position {labels[0]}"


# The formulas take gaps [..., K, n_bins]: one sample, or all draws at once. A class without docs is left out.


def _ace(gaps: FloatArray, sizes: IntArray) -> FloatArray:
    """``sizes`` [..., K, R]: docs in each range."""
    errors = np.abs(gaps) / np.maximum(sizes, 1)
    per_class = errors.sum(axis=-1) / np.maximum((sizes > 0).sum(axis=-1), 1)
    return np.asarray(per_class.sum(axis=-1) / (sizes.sum(axis=-1) > 0).sum(axis=-1))


def _sce(gaps: FloatArray, n_docs: FloatArray | IntArray) -> FloatArray:
    """``n_docs`` [..., K]: docs that have the class."""
    per_class = np.abs(gaps).sum(axis=-1) / np.maximum(n_docs, 1)
    return np.asarray(per_class.sum(axis=-1) / (n_docs > 0).sum(axis=-1))


def _classes(choices: Choices) -> list[IntArray]:
    """The forecasts of each class."""
    order = np.argsort(choices.position.astype(np.min_scalar_type(choices.position.max())), kind="stable")
    return np.split(order, np.cumsum(np.bincount(choices.position))[:-1])


def _most_choices(choices: Choices) -> int:
    return int(choices.n_choices.max())


def _ace_stderr(choices: Choices, *, n_bins: int, draws: int, seed: int, cluster: IntArray | None = None) -> float:
    classes = [sort_forecasts(choices.doc[k], choices.probs[k], choices.hits[k]) for k in _classes(choices)]
    options: dict[str, Any] = {"n_bins": n_bins, "draws": draws, "seed": seed, "cluster": cluster}
    return ranges_stderr(_ace, classes, len(choices.n_choices), **options)


def _ace_null(choices: Choices, *, n_bins: int, seed: int, cluster: IntArray | None = None) -> FloatArray:
    classes, rows, columns, shares = _classes(choices), [], [], []
    for k, member in enumerate(classes):
        scale = gap_vectors.range_scale(len(member), n_bins) / len(classes)
        ranges = nulls.ranges_membership(choices.probs[member], scale).tocoo()
        rows.append(member[ranges.row])
        columns.append(ranges.col + k * n_bins)
        shares.append(ranges.data)
    entries = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    membership = csr_array(entries, shape=(len(choices.probs), len(classes) * n_bins))
    return nulls.drawn_errors(nulls.forecasts_of_choices(choices, cluster), membership, seed)


@metric(
    "choices",
    higher_is_better=False,
    core=("choices",),
    order=3,
    stderr=_ace_stderr,
    estimate=inverted_tests(gap_vectors.class_range_gaps, null=_ace_null, per_doc=_most_choices),
    null=_ace_null,
)
def ace(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """Adaptive calibration error: 1 / (K R) sum_k sum_r |acc(r, k) - conf(r, k)| over equal-mass ranges.

    The R = n_bins ranges of class k are ``np.array_split`` of its sorted forecasts; ties take their mean
    outcome first, so order never matters. Empty ranges are left out of the mean; ranges count alike, then
    classes count alike. Warns where every doc has the same gold position: the error then measures that
    position, not the model.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice. n_bins: number of ranges of each class.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    choices = check_choices(probs, labels)
    n_bins = check_n_bins(n_bins)
    if reason := means_little(choices.position[choices.hits == 1]):
        warnings.warn(reason, stacklevel=2)
    ranges = [equal_mass_gaps(choices.probs[k], choices.hits[k], n_bins) for k in _classes(choices)]
    gaps, sizes = zip(*ranges, strict=True)
    return float(_ace(np.array(gaps), np.array(sizes)))


def _one_class_stderr(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, draws: int, seed: int, cluster: IntArray | None = None
) -> float:
    ranked = sort_forecasts(np.arange(len(conf)), conf, hit)
    return ranges_stderr(_ace, [ranked], len(conf), n_bins=n_bins, draws=draws, seed=seed, cluster=cluster)


def _one_class_null(
    conf: FloatArray, hit: FloatArray, *, n_bins: int, seed: int, cluster: IntArray | None = None
) -> FloatArray:
    membership = nulls.ranges_membership(conf, gap_vectors.range_scale(len(conf), n_bins))
    return nulls.drawn_errors(nulls.forecasts_of_docs(conf, hit, cluster), membership, seed)


@metric(
    "top_label",
    name="ace",
    higher_is_better=False,
    tables=("generation",),
    core=("generation",),
    order=3,
    stderr=_one_class_stderr,
    estimate=inverted_tests(gap_vectors.one_class_range_gaps, null=_one_class_null, per_doc=one_forecast),
    null=_one_class_null,
)
def ace_one_class(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """:func:`ace` of a generation, which has one class (K = 1): 1 / R sum_r |acc_r - conf_r|.

    Unlike :func:`~lm_eval_calibration.metrics.ace_top_label` all ranges count alike, which differs
    where N is no multiple of n_bins.

    confidence: [N] numbers in [0, 1]. correct: [N] 0 or 1. n_bins: number of ranges.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    conf, hit = check_top_label(confidence, correct)
    gaps, sizes = equal_mass_gaps(conf, hit, check_n_bins(n_bins))
    return float(_ace(gaps[None], sizes[None]))


def _class_cells(choices: Choices, n_bins: int) -> tuple[IntArray, int]:
    """The (class, equal-width bin) of each forecast, and the number of classes."""
    return choices.position * n_bins + bin_index(choices.probs, n_bins), int(choices.n_choices.max())


def _sce_stderr(choices: Choices, *, n_bins: int, draws: int, seed: int, cluster: IntArray | None = None) -> float:
    cell, n_classes = _class_cells(choices, n_bins)
    present = np.arange(n_classes) < choices.n_choices[:, None]
    gaps = gap_vectors.doc_sums(choices, cell, n_classes * n_bins)
    return binned_stderr(
        lambda gaps, docs: _sce(gaps.reshape(-1, n_classes, n_bins), np.rint(docs)),
        np.concatenate([gaps, present], axis=1),
        n_classes * n_bins,
        draws=draws,
        seed=seed,
        strata=choices.n_choices,
        cluster=cluster,
    )


def _sce_null(choices: Choices, *, n_bins: int, seed: int, cluster: IntArray | None = None) -> FloatArray:
    cell, n_classes = _class_cells(choices, n_bins)
    scale = 1 / (np.bincount(choices.position)[choices.position] * n_classes)
    return nulls.drawn_errors(
        nulls.forecasts_of_choices(choices, cluster), nulls.bins_membership(cell, n_classes * n_bins, scale), seed
    )


@metric(
    "choices",
    higher_is_better=False,
    order=11,
    stderr=_sce_stderr,
    estimate=inverted_tests(gap_vectors.class_bin_gaps, null=_sce_null, per_doc=_most_choices),
    null=_sce_null,
)
def sce(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """Static calibration error: 1 / K sum_k sum_m (n_mk / N_k) |acc(m, k) - conf(m, k)|, equal-width bins.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice. n_bins: number of bins; empty ones add 0.
    Returns a probability, 0 (best) to 1. Raises ValueError for bad input, naming the row and the value.
    Source: Nixon et al. 2019, arXiv:1904.01685.
    """
    choices, n_bins = check_choices(probs, labels), check_n_bins(n_bins)
    cell, n_classes = _class_cells(choices, n_bins)
    gaps = bin_sums(cell, choices.hits - choices.probs, n_classes * n_bins)
    return float(_sce(gaps.reshape(n_classes, n_bins), np.bincount(choices.position)))


def _pooled_stderr(choices: Choices, *, n_bins: int, draws: int, seed: int, cluster: IntArray | None = None) -> float:
    gaps = gap_vectors.doc_sums(choices, bin_index(choices.probs, n_bins), n_bins)
    return ratio_stderr(gaps, np.ones(len(gaps), dtype=np.int64), draws=draws, seed=seed, cluster=cluster)


def _pooled_null(choices: Choices, *, n_bins: int, seed: int, cluster: IntArray | None = None) -> FloatArray:
    membership = nulls.bins_membership(bin_index(choices.probs, n_bins), n_bins, 1 / len(choices.n_choices))
    return nulls.drawn_errors(nulls.forecasts_of_choices(choices, cluster), membership, seed)


@metric(
    "choices",
    higher_is_better=False,
    order=12,
    stderr=_pooled_stderr,
    estimate=inverted_tests(gap_vectors.choices_gaps, largest=2.0, null=_pooled_null, per_doc=_most_choices),
    null=_pooled_null,
)
def full_ece_choices(probs: Probs, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """All forecasts of all choices pooled: (1 / N) sum_m |sum_{(i, k) in m} (1[y_i = k] - p_ik)|.

    The formula of ``full_ece`` over the choices only, so not Full-ECE, which is over the vocabulary.

    probs: [N, K] choice probabilities, or N vectors of different lengths; rows sum to 1. labels: [N] position of the
    gold choice. n_bins: number of equal-width bins; empty ones add 0.
    Returns expected choices per doc, 0 (best) to 2. Raises ValueError for bad input, naming the row and the value.
    Source: after Liu et al. 2024, arXiv:2406.11345.
    """
    choices = check_choices(probs, labels)
    index = bin_index(choices.probs, check_n_bins(n_bins))
    gaps = bin_sums(index, choices.hits - choices.probs, n_bins)
    return float(np.abs(gaps).sum() / len(choices.n_choices))
