"""Every scalar metric by name: what it takes, which way is better, its value, standard error, interval and null."""

from collections.abc import Callable
from inspect import signature
from typing import Literal, NamedTuple

from lm_eval_calibration.metrics import classwise, full_vocabulary, intervals, nulls, proper_scores, ranking, top_label
from lm_eval_calibration.metrics.intervals import Interval
from lm_eval_calibration.metrics.nulls import Null

Kind = Literal["top_label", "choices", "full_vocabulary"]
Function = Callable[..., float]


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: The name in tables, JSON and the Python API.
        kind: The two arrays that it takes: "top_label" (confidence, correct), "choices" (probs, labels),
            "full_vocabulary" (gap_sums, n_positions).
        higher_is_better: None where the sign matters.
        value: Function of the two arrays.
        stderr: Function of the two arrays, its standard error.
        takes_n_bins: Whether its functions take ``n_bins``.
        interval: Function of the two arrays, its confidence interval; takes ``level`` and ``seed``.
        null: Function of the two arrays, what calibration would show; takes ``seed``. None for the areas that
            only rank docs (``aurc``, ``augrc``, ``auprc``).
    """

    name: str
    kind: Kind
    higher_is_better: bool | None
    value: Function
    stderr: Function
    takes_n_bins: bool
    interval: Callable[..., Interval]
    null: Callable[..., Null] | None


def _metric(kind: Kind, higher_is_better: bool | None, value: Function, stderr: Function) -> Metric:
    """The metric that is called like its function."""
    takes_n_bins = "n_bins" in signature(value).parameters
    name = value.__name__
    interval, null = getattr(intervals, f"{name}_interval"), getattr(nulls, f"{name}_null", None)
    return Metric(name, kind, higher_is_better, value, stderr, takes_n_bins, interval, null)


ACC = _metric("top_label", True, top_label.acc, top_label.acc_stderr)
"""Accuracy. Not in ``CATALOG``: tables have it already, from the stock task."""

_FULL_ECE = _metric(
    "full_vocabulary",
    False,
    full_vocabulary.full_ece_from_gap_sums,
    full_vocabulary.full_ece_from_gap_sums_stderr,
)

_METRICS = (
    _metric("choices", False, proper_scores.brier_score, proper_scores.brier_score_stderr),
    _metric("top_label", False, top_label.ece, top_label.ece_stderr),
    _metric("choices", False, classwise.ace, classwise.ace_stderr),
    _FULL_ECE._replace(name="full_ece"),
    _metric("top_label", True, ranking.auroc, ranking.auroc_stderr),
    _metric("top_label", False, top_label.ace_top_label, top_label.ace_top_label_stderr),
    _metric("top_label", False, proper_scores.brier_top_label, proper_scores.brier_top_label_stderr),
    _metric("choices", False, proper_scores.nll, proper_scores.nll_stderr),
    _metric("top_label", False, top_label.mce, top_label.mce_stderr),
    _metric("top_label", False, top_label.rms_ce, top_label.rms_ce_stderr),
    _metric("choices", False, classwise.sce, classwise.sce_stderr),
    _metric("choices", False, classwise.full_ece_choices, classwise.full_ece_choices_stderr),
    _metric("top_label", False, top_label.ece_debiased, top_label.ece_debiased_stderr),
    _metric("top_label", False, top_label.ce_l2_debiased, top_label.ce_l2_debiased_stderr),
    _metric("top_label", False, top_label.smece, top_label.smece_stderr),
    _metric("top_label", False, ranking.aurc, ranking.aurc_stderr),
    _metric("top_label", False, ranking.augrc, ranking.augrc_stderr),
    _metric("top_label", True, ranking.auprc, ranking.auprc_stderr),
    _metric("top_label", None, top_label.overconfidence, top_label.overconfidence_stderr),
    _metric("top_label", False, top_label.confident_error_rate, top_label.confident_error_rate_stderr),
    _metric("top_label", True, proper_scores.skill_score, proper_scores.skill_score_stderr),
)

CATALOG: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""All scalar metrics, the core ones first."""

_ACE_ONE_CLASS = _metric("top_label", False, classwise.ace_one_class, classwise.ace_one_class_stderr)

GENERATION_CATALOG: dict[str, Metric] = {
    name: _ACE_ONE_CLASS._replace(name="ace") if name == "ace" else metric
    for name, metric in CATALOG.items()
    if name == "ace" or metric.kind != "choices"
}
"""Those that are defined for generated answers; ``ace`` has one class there."""

GENERATION_CORE = ("brier_top_label", "ece", "ace", "full_ece", "auroc", "skill_score")
"""Those that the table prints for generated answers (``full_ece`` where there is a reference)."""

CORE = ("brier_score", "ece", "ace", "full_ece", "auroc")
"""Names of the metrics that the harness table prints by default, beside ``acc``."""
