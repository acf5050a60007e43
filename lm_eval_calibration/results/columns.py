"""Which metrics each table shows unless others are named, in which order, under which header: the one such list.

It is read over the live registry of metrics: one that is registered later is shown too, after those listed here.
"""

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import Metric

ACC = "acc"

_TABLES = {
    # all metrics: report, export, evidence, `Run.metrics`
    "all": (
        *(ACC, "brier_score", "ece", "ace", "full_ece", "auroc", "brier_top_label", "nll", "ece_debiased"),
        *("overconfidence", "confident_error_rate", "aurc", "skill_score"),
    ),
    "notebook": (ACC, "ece", "brier_score", "auroc", "overconfidence"),
    "report: compared with a calibrated model": ("ece", "ace", "full_ece", "brier_score", "auroc", "overconfidence"),
    "report: each task": (ACC, "overconfidence", "ece", "auroc"),
    "report: recalibration": (
        *("ece", "nll", "brier_score", "brier_top_label", "overconfidence", "auroc", "confident_error_rate"),
    ),
    "report: budgets": ("ece", "auroc", "brier_top_label", "overconfidence"),
    "compare": (ACC, "brier_score", "ece", "ace", "full_ece", "auroc"),
    "compare: generated answers": (ACC, "brier_top_label", "ece", "full_ece", "auroc"),
    "drift": (ACC, "brier_score", "ece", "ace", "full_ece", "auroc"),
    "confidences": (ACC, "ece", "auroc", "brier_top_label", "overconfidence"),
    "confidences: changes": (ACC, "ece", "auroc", "brier_top_label"),
    "recalibrate: tokens": (ACC, "full_ece", "nll", "brier_score", "ece", "ace", "overconfidence", "auroc"),
    "recalibrate: each group": ("brier_score", "brier_top_label", "nll", "ece", "auroc", "overconfidence"),
}

_WITH_NEW = {"all", "report: compared with a calibrated model", "compare", "compare: generated answers", "drift"}
"""Tables that show metrics which are listed nowhere here."""

_ON_REQUEST = (
    *("ace_top_label", "mce", "rms_ce", "rms_ce_mass", "sce", "full_ece_choices", "ce_l2_debiased", "smece"),
    *("augrc", "auprc"),
)
"""Metrics that no table shows unless they are named."""

_TITLES = {
    ACC: "Accuracy",
    "brier_score": "Brier score",
    "brier_top_label": "Brier (top label)",
    "ece": "ECE",
    "ace": "ACE",
    "full_ece": "Full-ECE",
    "auroc": "AUROC",
    "nll": "NLL",
    "ece_debiased": "ECE (debiased)",
}
"""Names for people; other metrics go by their own."""

_SHORT_TITLES = {ACC: "Acc.", "brier_score": "Brier"}
"""For tables with many columns."""

ARROWS = {True: "↑", False: "↓", None: "→0"}
DIRECTIONS = {True: "higher is better", False: "lower is better", None: "best at 0"}


def columns(table: str) -> tuple[str, ...]:
    """Return names of the metrics that a table shows by default."""
    listed = _TABLES[table]
    if table not in _WITH_NEW:
        return listed
    known = {*_ON_REQUEST, *(name for names in _TABLES.values() for name in names)}
    catalog = metrics.GENERATION_CATALOG if table.endswith("generated answers") else metrics.CATALOG
    return (*listed, *(name for name in catalog if name not in known))


def metric_of(name: str) -> Metric:
    """Return a metric; accuracy is one too."""
    return metrics.COMPARED[name]


def parse_metrics(text: str) -> list[str]:
    """Return the names in a list separated by commas.

    Raises:
        UserError: there is no such metric.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_metric(name)
    return names


def check_metric(name: str) -> None:
    """Raise UserError where there is no metric of this name."""
    if name not in metrics.COMPARED:
        raise UserError(f"no metric {name!r}; there are {', '.join(metrics.COMPARED)}")


def arrow(name: str) -> str:
    """Return which way is better: "↑", "↓" or "→0"."""
    return ARROWS[metric_of(name).higher_is_better]


def title(name: str) -> str:
    """Return the name of a metric for people."""
    return _TITLES.get(name, name)


def short_title(name: str) -> str:
    """Return :func:`title` for a table with many columns."""
    return _SHORT_TITLES.get(name, title(name))
