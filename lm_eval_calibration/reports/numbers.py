"""Numbers as text: every value, interval and p-value that people read is written here, undefined ones too."""

import json
import math
import re
from typing import Any

NOTHING = "–"
"""Stands for a number that is undefined or does not apply."""


def number(value: float, digits: int = 4, undefined: str = NOTHING) -> str:
    """Return 0.1234."""
    return undefined if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """Return +0.1234, as differences are written."""
    return NOTHING if math.isnan(value) else f"{value:+.{digits}f}"


def bounds(low: float, high: float, digits: int = 4) -> str:
    """Return "0.1000 to 0.2000", as in a column of intervals."""
    if math.isnan(low) and math.isnan(high):
        return NOTHING
    return f"{number(low, digits)} to {number(high, digits)}"


def interval(low: float, high: float, spec: str = ".4f") -> str:
    """Return "[0.1000, 0.2000]", as beside a value."""
    return NOTHING if math.isnan(low) else f"[{low:{spec}}, {high:{spec}}]"


def estimate(found: Any, digits: int = 4, interval_digits: int | None = None) -> str:
    """Return "0.1234 [0.1000, 0.2000]" of anything with ``value``, ``low`` and ``high``.

    Without the interval where that is undefined, and "undefined" where the value is.
    """
    if math.isnan(found.value):
        return "undefined"
    text = number(found.value, digits)
    spec = f".{digits if interval_digits is None else interval_digits}f"
    return text if math.isnan(found.low) else f"{text} {interval(found.low, found.high, spec)}"


def p_value(p: float, digits: int = 3) -> str:
    """Return a p-value, the same everywhere: 0.021, 0.0004, < 0.0001.

    Args:
        p: in [0, 1].
        digits: 3, with a fourth where all would be 0; or 4, as in a column.
    """
    if math.isnan(p):
        return NOTHING
    if p < 1e-4:
        return "< 0.0001"
    text = f"{p:.{digits}f}"
    return f"{p:.4f}" if float(text) == 0 else text


def p_equals(p: float) -> str:
    """Return "p = 0.021", as in a sentence; nothing where there is no test."""
    if math.isnan(p):
        return ""
    return f"p {p_value(p)}" if p < 1e-4 else f"p = {p_value(p)}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share as "12%"; only what is 0 or 1 is 0% or 100%: 0.997 is 99.7%, 0.99997 is > 99.9%."""
    text = f"{share:.{digits}%}"
    if share in (0, 1) or text not in (f"{0:.{digits}%}", f"{1:.{digits}%}"):
        return text
    if 0.0005 <= share < 0.9995:
        return f"{share:.{max(1, digits)}%}"
    return "< 0.1%" if share < 0.5 else "> 99.9%"


def count(n: int) -> str:
    """Return 12,345."""
    return f"{n:,}"


def short_count(n: int) -> str:
    """Return a count in the width of a bar: 12.3k."""
    return str(n) if n < 1000 else f"{n / 1000:.3g}k"


def short_time(text: str) -> str:
    """Return times in a text, as the harness writes them into names of files, to the minute: 2026-01-31 10:05."""
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:]\d\d(\.\d+)?", r"\1 \2:\3", text)


def finite(data: Any) -> Any:
    """Return JSON-ready data: named tuples as objects, tuples as lists, null for what is no finite number."""
    if hasattr(data, "_asdict"):
        data = data._asdict()
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def json_text(data: Any) -> str:
    """Return data as the JSON that every command writes: undefined numbers are null."""
    return json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
