"""All metrics on all bootstrap resamples of the docs at once.

Draw b takes the docs ``indices[b]`` of ``np.random.default_rng(seed).integers(0, N, size=(draws, N))``, as the standard
errors of :mod:`lm_eval_calibration.metrics` do. The same seed resamples two forecasts of the same docs alike, so their
draws are paired.
"""

from collections.abc import Collection
from functools import partial

import numpy as np

from lm_eval_calibration.metrics import CATALOG, Metric
from lm_eval_calibration.metrics.binning import bin_index, bin_sums
from lm_eval_calibration.metrics.resampling import (
    PRODUCT_CHUNK,
    bootstrap_estimates,
    resampled_ranges,
    resampling_weights,
    sort_forecasts,
)
from lm_eval_calibration.metrics.top_label import DEBIASING_DRAWS
from lm_eval_calibration.metrics.validation import Choices, FloatArray, IntArray, check_choices
from lm_eval_calibration.recalibration.docs import Forecasts

SLOW_DRAWS = 100
"""Draws of smece, which takes a hundredth of a second each; their spread is known to 7%."""

CONFIDENT = 0.9
"""Confidence from which ``confident_error_rate`` counts a doc."""
_RANKING = {"auroc", "aurc", "augrc", "auprc"}


def resampled_metrics(
    forecasts: Forecasts, names: Collection[str], *, n_bins: int, draws: int, seed: int
) -> dict[str, FloatArray]:
    """Metrics that these forecasts have, on every resample: name to [draws]; nan where a draw is undefined."""
    conf, hit = forecasts.confidence, forecasts.correct.astype(np.float64)
    choices = None if forecasts.probs is None else check_choices(forecasts.probs, forecasts.labels)
    columns = _top_label_columns(conf, hit, n_bins) | ({} if choices is None else _choices_columns(choices, n_bins))
    widths = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    doc_sums = np.concatenate(list(columns.values()), axis=1)
    ranking = _Ranking(conf, hit)
    found: dict[str, list[FloatArray]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for weights in resampling_weights(len(conf), draws, seed, PRODUCT_CHUNK // 4):
            totals = dict(zip(columns, np.split(weights.astype(np.float64) @ doc_sums, widths, axis=1), strict=True))
            metrics = _of_totals(totals, len(conf), debias="ece_debiased" in names)
            if _RANKING & set(names):
                metrics |= ranking(weights.astype(np.int64))
            for name, values in metrics.items():
                found.setdefault(name, []).append(values)
    result = {name: np.concatenate(values) for name, values in found.items()}
    options = {"n_bins": n_bins, "draws": draws, "seed": seed}
    if "ace_top_label" in names:
        result["ace_top_label"] = _ace_top_label(conf, hit, **options)
    if "ace" in names and choices is not None:
        result["ace"] = _ace(choices, **options)
    if "ce_l2_debiased" in names and len(conf) >= 2 * n_bins:
        metric = partial(CATALOG["ce_l2_debiased"].value, n_bins=n_bins)
        result["ce_l2_debiased"] = bootstrap_estimates(metric, conf, hit, draws=draws, seed=seed)
    if "smece" in names:
        few = min(draws, SLOW_DRAWS)
        result["smece"] = bootstrap_estimates(CATALOG["smece"].value, conf, hit, draws=few, seed=seed)
    return {name: values for name, values in result.items() if name in names}


def _top_label_columns(conf: FloatArray, hit: FloatArray, n_bins: int) -> dict[str, FloatArray]:
    """What each doc adds to the sums that the metrics are made of."""
    confident = conf >= CONFIDENT
    means = np.stack([hit, conf, (conf - hit) ** 2, confident, confident * (1 - hit)], axis=1)
    cells = np.zeros((3, len(conf), n_bins))
    cells[:, np.arange(len(conf)), bin_index(conf, n_bins)] = np.ones(len(conf)), conf, hit
    return {"means": means, "counts": cells[0], "conf": cells[1], "hits": cells[2]}


def _choices_columns(choices: Choices, n_bins: int) -> dict[str, FloatArray]:
    n_docs, n_classes = len(choices.n_choices), int(choices.n_choices.max())
    gaps, index = choices.hits - choices.probs, bin_index(choices.probs, n_bins)
    with np.errstate(divide="ignore"):
        log_loss = -np.log(choices.probs[choices.hits == 1])
    if not np.isfinite(log_loss).all():  # infinite times never drawn would be nan, and it is infinite anyway
        log_loss = np.full(n_docs, np.nan)
    return {
        "brier": bin_sums(choices.doc, gaps**2, n_docs)[:, None],
        "nll": log_loss[:, None],
        "class_gaps": _doc_sums(choices, choices.position * n_bins + index, gaps, n_classes * n_bins),
        "classes": (np.arange(n_classes) < choices.n_choices[:, None]).astype(np.float64),
        "choice_gaps": _doc_sums(choices, index, gaps, n_bins),
    }


def _doc_sums(choices: Choices, cell: IntArray, values: FloatArray, n_cells: int) -> FloatArray:
    n_docs = len(choices.n_choices)
    return bin_sums(choices.doc * n_cells + cell, values, n_docs * n_cells).reshape(n_docs, n_cells)


def _of_totals(totals: dict[str, FloatArray], n_docs: int, *, debias: bool) -> dict[str, FloatArray]:
    """Metrics that are functions of sums over docs, from their totals [draws, F]."""
    accuracy, confidence, square, confident, confident_wrong = totals["means"].T / n_docs
    counts, size = totals["counts"], np.maximum(totals["counts"], 1)
    gaps = totals["hits"] - totals["conf"]
    result = {
        "brier_top_label": square,
        "overconfidence": confidence - accuracy,
        "confident_error_rate": np.where(confident > 0, confident_wrong / confident, np.nan),
        "skill_score": np.where((accuracy > 0) & (accuracy < 1), 1 - square / (accuracy * (1 - accuracy)), np.nan),
        "ece": np.abs(gaps).sum(axis=1) / n_docs,
        "mce": np.max(np.abs(gaps) / size, axis=1),
        "rms_ce": np.sqrt((gaps**2 / size).sum(axis=1) / n_docs),
    }
    if debias:
        result["ece_debiased"] = _ece_debiased(counts, totals["hits"] / size, totals["conf"] / size)
    if "nll" not in totals:
        return result
    n_classes = totals["classes"].shape[1]
    per_class = np.abs(totals["class_gaps"]).reshape(len(counts), n_classes, -1).sum(axis=2)
    return result | {
        "brier_score": totals["brier"][:, 0] / n_docs,
        "nll": totals["nll"][:, 0] / n_docs,
        "sce": (per_class / np.maximum(totals["classes"], 1)).sum(axis=1) / (totals["classes"] > 0).sum(axis=1),
        "full_ece_choices": np.abs(totals["choice_gaps"]).sum(axis=1) / n_docs,
    }


def _ece_debiased(counts: FloatArray, accuracy: FloatArray, mean_conf: FloatArray) -> FloatArray:
    """2 ece - mean_b ece_b with the metric's own redrawn accuracies, at least 0."""
    noise = np.random.default_rng(0).standard_normal((DEBIASING_DRAWS, counts.shape[1]))
    spread, n_docs = np.sqrt(accuracy * (1 - accuracy) / np.maximum(counts, 1)), counts.sum(axis=1)
    plug_in = (counts * np.abs(accuracy - mean_conf)).sum(axis=1) / n_docs
    redrawn = np.empty(len(counts))
    for b, (n, acc, conf, sd) in enumerate(zip(counts, accuracy, mean_conf, spread, strict=True)):
        redrawn[b] = (np.abs(acc + sd * noise - conf) @ n).mean() / n_docs[b]
    return np.where(counts.max(axis=1) < 2, np.nan, np.maximum(0, 2 * plug_in - redrawn))


class _Ranking:
    """Metrics of the order of the docs, from how often each doc was drawn; tied docs stay together."""

    def __init__(self, conf: FloatArray, hit: FloatArray) -> None:
        self.order = np.argsort(-conf, kind="stable")
        self.hit, ranked = hit[self.order].astype(np.int64), conf[self.order]
        self.ends = np.append(np.flatnonzero(ranked[1:] < ranked[:-1]), len(ranked) - 1)
        self.harmonic = np.append(0, np.cumsum(1 / np.arange(1, len(conf) + 1)))

    def __call__(self, weights: IntArray) -> dict[str, FloatArray]:
        """Return auroc, aurc, augrc and auprc, [draws] each.

        n docs stand above a group of g tied docs; r of them, and q of the group, are right.
        """
        drawn, n_docs = weights[:, self.order], len(self.hit)
        below = np.cumsum(drawn, axis=1)[:, self.ends]
        right = np.cumsum(drawn * self.hit, axis=1)[:, self.ends]
        g, q = np.diff(below, prepend=0, axis=1), np.diff(right, prepend=0, axis=1)
        n, r = below - g, right - q
        steps = self.harmonic[below] - self.harmonic[n]  # sum of 1 / (n + j) over j = 1..g
        wrong, size = g - q, np.maximum(g, 1)
        n_right, n_wrong = right[:, -1], below[:, -1] - right[:, -1]
        beaten = (wrong * (r + q / 2)).sum(axis=1)
        risk = (n - r) * steps + wrong / size * (g - n * steps)
        silent = g * (n - r) + wrong * g / 2
        others = (q - 1) / np.maximum(g - 1, 1)
        precision = q / size * ((r + 1 - others * (n + 1)) * steps + others * g)
        return {
            "auroc": np.where(n_right * n_wrong > 0, beaten / (n_right * n_wrong), np.nan),
            "aurc": risk.sum(axis=1) / n_docs,
            "augrc": silent.sum(axis=1) / n_docs**2,
            "auprc": np.where(n_right > 0, precision.sum(axis=1) / n_right, np.nan),
        }


def _ace_top_label(conf: FloatArray, hit: FloatArray, **options: int) -> FloatArray:
    forecasts = sort_forecasts(np.arange(len(conf)), conf, hit)
    gaps, sizes = resampled_ranges([forecasts], len(conf), **options)
    return np.asarray(np.abs(gaps).sum(axis=(1, 2)) / sizes.sum(axis=(1, 2)))


def _ace(choices: Choices, **options: int) -> FloatArray:
    classes = [np.flatnonzero(choices.position == k) for k in range(choices.n_choices.max())]
    forecasts = [sort_forecasts(choices.doc[k], choices.probs[k], choices.hits[k]) for k in classes]
    gaps, sizes = resampled_ranges(forecasts, len(choices.n_choices), **options)
    used = sizes > 0
    per_class = (np.abs(gaps) / np.maximum(sizes, 1)).sum(axis=2) / np.maximum(used.sum(axis=2), 1)
    return np.asarray(per_class.sum(axis=1) / used.any(axis=2).sum(axis=1))


def _has_relplot() -> bool:
    from importlib.util import find_spec

    return find_spec("relplot") is not None


def computable(metric: Metric, forecasts: Forecasts) -> bool:
    """Whether the metric can be computed of these forecasts here."""
    return forecasts.arguments(metric) is not None and (metric.name != "smece" or _has_relplot())
