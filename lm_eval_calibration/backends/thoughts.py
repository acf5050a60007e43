"""Thoughts in texts: what comes after one, and where a prompt begins one."""

import re
from typing import Any

THINK_END = "</think>"
"""What ends a thought where the backend was told of nothing else."""

_BEGIN = re.compile(r"<(think|thinking|thought|reasoning)>")

_OPEN = re.compile(_BEGIN.pattern + r"\s*\Z")
"""The end of a prompt whose template begins a thought for the model."""


def after_thought(text: str, think_end: str = THINK_END) -> str | None:
    """Return what a text says after its thought, all of it without one; None where the thought is not closed."""
    _, closed, rest = text.rpartition(think_end)
    return rest if closed or not _BEGIN.search(text) else None


def open_thought(prompt: str) -> str | None:
    """Return what would close the thought that a prompt ends by beginning; None where it begins none."""
    found = _OPEN.search(prompt)
    return f"</{found.group(1)}>" if found else None


def is_open_thought(prompt: Any, text: str, think_end: str = THINK_END) -> bool:
    """Whether a thought begins in a text, or at the end of its prompt, that the text doesn't end.

    The string that begins one is taken to be the one that ends it without its slash: ``<think>``.
    """
    begin = think_end.replace("</", "<", 1)
    if begin == think_end:
        return False
    # Only the end of the prompt counts: a question may be about these marks.
    whole = f"{begin if str(prompt).rstrip().endswith(begin) else ''}{text}"
    return whole.rfind(begin) > whole.rfind(think_end)


def begins_with_thought(text: str) -> bool:
    """Whether a text begins with the mark that begins a thought."""
    return _BEGIN.match(text.lstrip()) is not None
