"""Models that think before they answer: where the thought ends, and which models begin one."""

import re

THINK_END = "</think>"
"""What ends a thought where the backend was told of nothing else."""

_BEGIN = re.compile(r"<(?:think|thinking|thought|reasoning)>")


def after_thought(text: str, think_end: str = THINK_END) -> str | None:
    """Return what a text says after its thought, all of it without one; None where the thought is not closed."""
    _, closed, rest = text.rpartition(think_end)
    return rest if closed or not _BEGIN.search(text) else None
