"""BibTeX of the papers that a table's metrics come from, and of this software."""

import re
from collections.abc import Iterable
from pathlib import Path

from lm_eval_calibration import __version__

SOFTWARE, HOLM = "lm-eval-calibration", "holm1979simple"

_OF_METRIC = {
    "brier_score": "brier1950verification",
    "brier_top_label": "brier1950verification",
    "ece": "naeini2015obtaining",
    "mce": "naeini2015obtaining",
    "ace": "nixon2019measuring",
    "sce": "nixon2019measuring",
    "full_ece": "liu2024fullece",
    "auroc": "hanley1982meaning",
    "ece_debiased": "kumar2019verified",
    "ce_l2_debiased": "kumar2019verified",
    "smece": "blasiok2023smooth",
}


def cited(names: Iterable[str]) -> list[str]:
    """Return keys of the papers of these metrics, of Holm's procedure and of this software, each once."""
    papers = [_OF_METRIC[name] for name in names if name in _OF_METRIC]
    return list(dict.fromkeys([*papers, HOLM, SOFTWARE]))


def bibtex(names: Iterable[str]) -> str:
    """Return the entries of what :func:`cited` names."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8").replace("VERSION", __version__)
    entries = {re.findall(r"{(.*),", entry)[0]: entry for entry in text.strip().split("\n\n")}
    return "\n\n".join(entries[key] for key in cited(names)) + "\n"
