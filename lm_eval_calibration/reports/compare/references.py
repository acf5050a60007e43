"""BibTeX of the papers that a table's metrics come from, and of this software."""

from collections.abc import Iterable

from lm_eval_calibration import __version__

SOFTWARE = f"""@misc{{lm-eval-calibration,
  title = {{lm-eval-calibration: calibration beside accuracy in the evaluation of language models}},
  author = {{{{The lm-eval-calibration authors}}}},
  note = {{Version {__version__}}},
}}"""

_ENTRIES = {
    "liu2024fullece": """@misc{liu2024fullece,
  title = {Full-{ECE}: A Metric For Token-level Calibration on Large Language Models},
  author = {Liu, Han and others},
  year = {2024},
  eprint = {2406.11345},
  archiveprefix = {arXiv},
}""",
    "nixon2019measuring": """@misc{nixon2019measuring,
  title = {Measuring Calibration in Deep Learning},
  author = {Nixon, Jeremy and Dusenberry, Mike and Jerfel, Ghassen and Nguyen, Timothy and Liu, Jeremiah and
    Zhang, Linchuan and Tran, Dustin},
  year = {2019},
  eprint = {1904.01685},
  archiveprefix = {arXiv},
}""",
    "naeini2015obtaining": """@inproceedings{naeini2015obtaining,
  title = {Obtaining Well Calibrated Probabilities Using {B}ayesian Binning},
  author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year = {2015},
}""",
    "brier1950verification": """@article{brier1950verification,
  title = {Verification of Forecasts Expressed in Terms of Probability},
  author = {Brier, Glenn W.},
  journal = {Monthly Weather Review},
  volume = {78},
  number = {1},
  pages = {1--3},
  year = {1950},
}""",
    "hanley1982meaning": """@article{hanley1982meaning,
  title = {The Meaning and Use of the Area under a Receiver Operating Characteristic ({ROC}) Curve},
  author = {Hanley, James A. and McNeil, Barbara J.},
  journal = {Radiology},
  volume = {143},
  number = {1},
  pages = {29--36},
  year = {1982},
}""",
    "kumar2019verified": """@inproceedings{kumar2019verified,
  title = {Verified Uncertainty Calibration},
  author = {Kumar, Ananya and Liang, Percy and Ma, Tengyu},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2019},
}""",
    "blasiok2023smooth": r"""@misc{blasiok2023smooth,
  title = {Smooth {ECE}: Principled Reliability Diagrams via Kernel Smoothing},
  author = {B{\l}asiok, Jaros{\l}aw and Nakkiran, Preetum},
  year = {2023},
  eprint = {2309.12236},
  archiveprefix = {arXiv},
}""",
    "holm1979simple": """@article{holm1979simple,
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  author = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume = {6},
  number = {2},
  pages = {65--70},
  year = {1979},
}""",
}

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
    """Keys of the papers of these metrics, of Holm's procedure and of this software, each once."""
    papers = [_OF_METRIC[name] for name in names if name in _OF_METRIC]
    return list(dict.fromkeys([*papers, "holm1979simple", "lm-eval-calibration"]))


def bibtex(names: Iterable[str]) -> str:
    """Entries of what :func:`cited` names."""
    entries = {**_ENTRIES, "lm-eval-calibration": SOFTWARE}
    return "\n\n".join(entries[key] for key in cited(names)) + "\n"
