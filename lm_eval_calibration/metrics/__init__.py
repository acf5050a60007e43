"""Calibration metrics: arrays in, float out.

Each has a standard error ``<name>_stderr``, a confidence interval ``<name>_interval`` and, but for the areas
that only rank docs, a null ``<name>_null``: what a calibrated model would show. :func:`compare` takes two runs.

Needs NumPy, SciPy and scikit-learn only. Top-label metrics take ``(confidence, correct)``, classwise ones
``(probs, labels)``, full-vocabulary ones ``(probs, targets)`` or mergeable gap sums. :data:`CATALOG` lists
them all; how to add one is told in :mod:`~lm_eval_calibration.metrics.registry`.
"""

from typing import Any

from lm_eval_calibration.metrics.areas import augrc, auprc, aurc
from lm_eval_calibration.metrics.binning import bin_edges, bin_index
from lm_eval_calibration.metrics.classwise import ace, ace_one_class, full_ece_choices, sce
from lm_eval_calibration.metrics.comparison import RUN_FIELDS, Comparison, Run, compare, holm
from lm_eval_calibration.metrics.corpora import token_accuracy, token_ece
from lm_eval_calibration.metrics.debiased_errors import ce_l2_debiased, ece_debiased
from lm_eval_calibration.metrics.decompositions import (
    CorpDecomposition,
    NllDecomposition,
    corp_decomposition,
    corp_decomposition_stderr,
    nll_decomposition,
)
from lm_eval_calibration.metrics.full_vocabulary import (
    full_ece,
    full_ece_from_gap_sums,
    full_ece_interval,
    full_ece_null,
    full_ece_stderr,
)
from lm_eval_calibration.metrics.positions import answer_changes, position_spread
from lm_eval_calibration.metrics.proper_scores import brier_score, brier_top_label, nll, skill_score
from lm_eval_calibration.metrics.ranking import auroc
from lm_eval_calibration.metrics.registry import (
    CATALOG,
    COMPARED,
    CORE,
    CORPUS_CATALOG,
    GENERATION_CATALOG,
    GENERATION_CORE,
    Metric,
    function_of,
    functions,
)
from lm_eval_calibration.metrics.selective import (
    RiskCoverageCurve,
    acc,
    confident_error_rate,
    risk_coverage_curve,
    selective_accuracy,
    selective_accuracy_interval,
)
from lm_eval_calibration.metrics.strata import StratumMetric, by_stratum
from lm_eval_calibration.metrics.token_sums import (
    check_kept_from,
    gap_sums,
    gap_sums_of_positions,
    position_gap_sums,
)
from lm_eval_calibration.metrics.top_k import full_ece_bounds
from lm_eval_calibration.metrics.top_label_errors import (
    RMS_CE_MASS_WITHOUT_LAST,
    ace_top_label,
    ece,
    mce,
    overconfidence,
    rms_ce,
    rms_ce_mass,
    rms_ce_mass_without_last,
    smece,
)
from lm_eval_calibration.metrics.uncertainty.nulls import Null, too_few_to_tell
from lm_eval_calibration.metrics.uncertainty.resampling import bootstrap_stderr
from lm_eval_calibration.metrics.value_errors import (
    ece_values,
    ece_values_interval,
    ece_values_null,
    ece_values_stderr,
)
from lm_eval_calibration.metrics.verdicts import tendency

__all__ = [
    "ACC",
    "CATALOG",
    "COMPARED",
    "CORE",
    "CORPUS_CATALOG",
    "GENERATION_CATALOG",
    "GENERATION_CORE",
    "RMS_CE_MASS_WITHOUT_LAST",
    "RUN_FIELDS",
    "Comparison",
    "CorpDecomposition",
    "Metric",
    "NllDecomposition",
    "Null",
    "RiskCoverageCurve",
    "Run",
    "StratumMetric",
    "acc",
    "ace",
    "ace_one_class",
    "ace_top_label",
    "answer_changes",
    "augrc",
    "auprc",
    "aurc",
    "auroc",
    "bin_edges",
    "bin_index",
    "bootstrap_stderr",
    "brier_score",
    "brier_top_label",
    "by_stratum",
    "ce_l2_debiased",
    "check_kept_from",
    "compare",
    "confident_error_rate",
    "corp_decomposition",
    "corp_decomposition_stderr",
    "ece",
    "ece_debiased",
    "ece_values",
    "ece_values_interval",
    "ece_values_null",
    "ece_values_stderr",
    "full_ece",
    "full_ece_bounds",
    "full_ece_choices",
    "full_ece_from_gap_sums",
    "full_ece_interval",
    "full_ece_null",
    "full_ece_stderr",
    "gap_sums",
    "gap_sums_of_positions",
    "holm",
    "mce",
    "nll",
    "nll_decomposition",
    "overconfidence",
    "position_gap_sums",
    "position_spread",
    "risk_coverage_curve",
    "rms_ce",
    "rms_ce_mass",
    "rms_ce_mass_without_last",
    "sce",
    "selective_accuracy",
    "selective_accuracy_interval",
    "skill_score",
    "smece",
    "tendency",
    "token_accuracy",
    "token_ece",
    "too_few_to_tell",
]
__all__ += functions()  # noqa: PLE0605 - a star import gets what the registry makes, too

ACC = COMPARED["acc"]
"""Accuracy. Not in ``CATALOG``: tables have it already, from the stock task."""


def __getattr__(name: str) -> Any:
    """The functions of every registered metric: ``ece_stderr``, ``ece_interval``, ``ece_null``."""
    function = function_of(name)
    if function is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *functions()})
