"""Text that comes from data, as people may see it: nothing in it changes a line, a terminal or the order of letters."""

import unicodedata
from collections.abc import Sequence

_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
"""Categories of Unicode: control, format (bidirectional marks among them), surrogates, none, private, breaks."""

_JOINERS = "\u200c\u200d"
"""Format characters that words of Persian, Hindi and others, and emoji, are written with."""


def counted(n: int, n_clusters: int | None = None, what: str = "docs") -> str:
    """Return how many docs (or others) there are and, where they were drawn in clusters, of how many."""
    what = what.removesuffix("s") if n == 1 else what
    return f"{n:,} {what}" + ("" if n_clusters is None else f" of {counted(n_clusters, what='clusters')}")


def some(texts: Sequence[str], n: int = 3, between: str = ", ") -> str:
    """Return the first of some texts, and how many more there are."""
    return between.join(texts[:n]) + (f" and {len(texts) - n} more" if len(texts) > n else "")


def visible(text: str) -> str:
    """Return text with an escape, as Python writes it, in the place of each character that has no sign."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if is_hidden(char) else char for char in text)


def is_hidden(char: str) -> bool:
    """Return whether a character has no sign of its own."""
    return unicodedata.category(char) in _HIDDEN and char not in _JOINERS


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii") if char > "\xff" or char < " " else f"\\x{ord(char):02x}"
