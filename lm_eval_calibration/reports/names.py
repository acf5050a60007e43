"""Names of models and tasks as people say them: the one place where ``--rename`` applies."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lm_eval_calibration.errors import UserError

EVERYTHING = "All together"
"""Name of the docs of all tasks, as a part of a report."""

_WRITTEN = {
    word.lower(): word
    for word in (
        *("MMLU", "CMMLU", "MMMLU", "STEM", "ARC", "BBH", "GSM8K", "US", "CoT", "GPQA", "AGIEval", "SAT", "LSAT"),
        *("BoolQ", "PIQA", "CB", "RTE", "COPA", "WiC", "WSC", "MultiRC", "ReCoRD", "GLUE", "CoLA", "MNLI", "MRPC"),
        *("QNLI", "QQP", "WNLI", "ANLI", "XNLI", "XCOPA", "HellaSwag", "WinoGrande", "OpenBookQA", "TruthfulQA"),
        *("MC1", "MC2", "SciQ", "SQuAD", "DROP", "RACE", "LogiQA", "LAMBADA", "SWAG", "IFEval", "MATH", "AIME"),
        *("MedQA", "MedMCQA", "PubMedQA", "HumanEval", "MBPP", "WikiText", "TriviaQA", "SimpleQA", "CommonsenseQA"),
        *("MGSM", "MathQA", "CoQA", "HeadQA", "QA", "NQ", "WebQs", "WMDP", "ASDiv", "BLiMP", "KMMLU", "SQuADv2"),
        *("QASPER", "OpenAI", "IQA", "XWinograd", "PAWS", "TyDiQA", "MMStar", "ArabicMMLU", "JSON", "SQL"),
    )
} | {
    "sglue": "SuperGLUE",
    "sst2": "SST-2",
    "zeroshot": "zero-shot",
    "fewshot": "few-shot",
    "ceval": "C-Eval",
    "4options": "(4 options)",
}
"""How words of tasks' names are written that are no English words."""


_renamed: dict[str, str] = {}
"""New names by old ones, of the command that runs."""

_looked_up: dict[str, str | None] = {}
"""Names that were shown since, with what ``--rename`` called them: an old name of it, or None."""

MOST_LISTED = 20
"""Names that a note lists."""


def parse_renames(given: Sequence[str]) -> dict[str, str]:
    """Return new names by old ones.

    Args:
        given: OLD=NEW each; the first "=" ends OLD.

    Raises:
        UserError: no "=", an empty name, or one name given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals or not old.strip() or not new.strip():
            raise UserError(f"--rename {text}: it is OLD=NEW, as mmlu_anatomy_calibration=Anatomy")
        if old in found:
            raise UserError(f"--rename {text}: {old} is renamed twice")
        found[old] = new
    return found


@contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Show models, tasks and groups by new names until the context ends.

    Args:
        names: new names by old ones; of a task with or without ``_calibration``.
    """
    before = dict(_renamed)
    _renamed.update(names)
    _looked_up.clear()
    try:
        yield
    finally:
        _renamed.clear()
        _renamed.update(before)


def without_a_match(names: Mapping[str, str]) -> list[str]:
    """Return notes about renames that nothing shown has as its name, with the names that there are.

    Nothing before names were shown, as of a command that failed.
    """
    there = sorted(name for name in _looked_up if name not in names.values())
    unused = [old for old in names if old not in _looked_up.values()]
    more = f" and {len(there) - MOST_LISTED} more" if len(there) > MOST_LISTED else ""
    listed = ", ".join(there[:MOST_LISTED]) + more
    return [
        f"--rename {old}={names[old]}: nothing shown is called {old}; there are {listed}" for old in unused if there
    ]


def shown(name: str) -> str:
    """Return what a model, task or group was renamed to, or else its name.

    Of a model ``org/name`` the name alone may have been given, of a task that without ``_calibration``.
    """
    known = (name, name.removesuffix("_calibration"), name.rpartition("/")[2])
    old = next((old for old in known if old in _renamed), None)
    if _renamed:
        _looked_up[name] = old
    return name if old is None else _renamed[old]


def task_name(name: str) -> str:
    """Return the name of a task or group in words."""
    if (new := shown(name)) != name:
        return new
    if name in (EVERYTHING, "all"):
        return "All tasks"
    text = " ".join(_WRITTEN.get(word, word) for word in name.removesuffix("_calibration").split("_"))
    return text[:1].upper() + text[1:]


def short_task_name(name: str, length: int = 24) -> str:
    """Return :func:`task_name` in the width of a diagram's label."""
    text = task_name(name).removeprefix("MMLU ")
    return text if len(text) <= length else f"{text[: length - 1]}…"
