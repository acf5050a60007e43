"""The options that a doc's answer is to be one of, where the answer is written: from the task, or from the prompt."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval_calibration.errors import TaskError

AUTO = "auto"
"""The value of the option ``answer_options`` that takes the options from the task or the prompt."""

_LABELLED = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.)])[ \t]+(\S.*)$", re.MULTILINE)
_IN_A_ROW = re.compile(r"(?:\(([A-Z])\)|(?<!\S)([A-Z])[.)])\s*((?:(?!\([A-Z]\)|(?<!\S)[A-Z][.)]).)*)", re.DOTALL)
_BULLET = re.compile(r"^[ \t]*[-*][ \t]+(\S.*)$", re.MULTILINE)
_HEAD = re.compile(r"\b(?:options|choices):", re.IGNORECASE)
AROUND = " \t\n()[]{}."
"""What may stand around an option in an answer."""


def problem_of_wanted(wanted: Any) -> str | None:
    """Say what is wrong with the value of ``answer_options``."""
    if wanted is None or (isinstance(wanted, str) and wanted) or (isinstance(wanted, list | tuple) and len(wanted) > 1):
        return None
    return f", neither {AUTO!r}, nor a list of options, nor a column or template that gives one"


class DocOptions(NamedTuple):
    """A doc's options.

    Attributes:
        forms: the options as they may be written, each form a text for every option: their labels, their texts.
        gold: index of the right one; None where the doc's target is none of them.
    """

    forms: tuple[tuple[str, ...], ...]
    gold: int | None = None

    def which(self, written: Any) -> int | None:
        """Return which option is written, brackets and a full stop left out; None where that is none or two of them.

        Words are the same in capital and small letters, single letters are not.
        """
        for form in self.forms:
            found = [i for i, option in enumerate(form) if _key(option) == _key(str(written))]
            if len(found) == 1:
                return found[0]
        return None

    def in_place_of(self, written: str) -> list[str] | None:
        """Return each option as the one of a text is written in it: "(A)" for "(B)", "no" for "yes"; None as above."""
        core = written.strip(AROUND)
        start, end = written.find(core), written.find(core) + len(core)
        for form in self.forms if core else ():
            plain = [option.strip(AROUND) for option in form]
            for options in (plain, [_in_case_of(core, option) for option in plain]):
                if options.count(core) == 1:
                    return [written[:start] + option + written[end:] for option in options]
        return None


def options_of(task: Any, doc: dict[str, Any], wanted: Any) -> DocOptions | None:
    """Return a doc's options; None where it has none.

    Args:
        task: the doc's.
        doc: the doc.
        wanted: ``AUTO``: the task's ``doc_to_choice``, else what the prompt lists; or as ``doc_to_choice`` may be, a
            list, a column or a template.

    Raises:
        TaskError: the options that were wanted are no list of texts.
    """
    if wanted != AUTO:
        forms = _forms_of_choices(task, doc, wanted)
    elif task.config.doc_to_choice is not None:
        forms = _forms_of_choices(task, doc, None)
    else:
        forms = listed_options(str(task.doc_to_text(doc)))
    if len(forms) == 0 or len(forms[0]) < 2:
        return None
    options, target = DocOptions(forms), task.doc_to_target(doc)
    if isinstance(target, int) and not isinstance(target, bool) and task.config.doc_to_choice is not None:
        return options._replace(gold=target if 0 <= target < len(forms[0]) else None)
    return options._replace(gold=None if isinstance(target, list | tuple) else options.which(target))


def listed_options(prompt: str) -> tuple[tuple[str, ...], ...]:
    """Return labels and texts of the options that a prompt lists last: (A), A. or A) and so on, or bullets."""
    heads = list(_HEAD.finditer(prompt))
    after = prompt[heads[-1].end() :] if heads else ""
    for found in (_LABELLED.findall(prompt), _IN_A_ROW.findall(after)):
        if len(labelled := _last_from_a([(a or b, text.strip()) for a, b, text in found])) > 1:
            labels, texts = zip(*labelled, strict=True)
            return labels, texts
    bullets = tuple(text.strip() for text in _BULLET.findall(after))
    return (bullets,) if len(bullets) > 1 else ()


def _last_from_a(labelled: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the last of these whose labels are A, B, C and so on."""
    found: list[tuple[str, str]] = []
    for label, text in labelled:
        if label == "A":
            found = []
        if ord(label) == ord("A") + len(found):
            found.append((label, text))
    return found


def _forms_of_choices(task: Any, doc: dict[str, Any], wanted: Any) -> tuple[tuple[str, ...], ...]:
    try:
        choices = task.doc_to_choice(doc, wanted)
    except Exception as error:  # a template may be anything
        raise TaskError(f"{task.calibration.where}: answer_options {wanted!r} give no list: {error!r}") from error
    if not isinstance(choices, list | tuple):
        raise TaskError(f"{task.calibration.where}: answer_options {wanted!r} give {choices!r}, no list")
    texts = tuple(str(choice) for choice in choices)
    listed = listed_options(str(task.doc_to_text(doc)))
    if listed and len(listed[0]) == len(texts):  # a prompt's labels stand for the task's choices
        return (texts, listed[0])
    return (texts,)


def _key(written: str) -> str:
    core = written.strip(AROUND)
    return core if len(core) == 1 else core.casefold()


def _in_case_of(written: str, option: str) -> str:
    """Return an option in capital or small letters, or with a capital, as what is written is."""
    if written.islower():
        return option.lower()
    if len(written) > 1 and written.isupper():
        return option.upper()
    return option[:1].upper() + option[1:] if written[:1].isupper() else option
