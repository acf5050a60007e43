"""One option of a calibrated task: its name, its default, and which values it takes."""

import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from lm_eval_calibration.errors import nearest
from lm_eval_calibration.records import DOC


class Option(NamedTuple):
    """An option that a user may set under ``metadata: {calibration: ...}``.

    Attributes:
        name: as the user writes it.
        default: value where it is not set.
        problem: function of a value that returns what is wrong with it, in words that follow "NAME is VALUE"; None
            where nothing is.
    """

    name: str
    default: Any
    problem: Callable[[Any], str | None]


def flag(name: str, *, default: bool = False) -> Option:
    """Return an option that is true or false."""
    return Option(name, default, lambda value: None if isinstance(value, bool) else ", not true or false")


def whole_number(name: str, low: int, high: int, *, default: int = 0) -> Option:
    """Return an option that is a whole number within limits."""

    def problem(value: Any) -> str | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and low <= value <= high else f", not a whole number from {low} to {high}"

    return Option(name, default, problem)


def whole_numbers(name: str) -> Option:
    """Return an option that is a list of different whole numbers, the smallest first; none by default."""

    def problem(value: Any) -> str | None:
        is_list = isinstance(value, list | tuple) and all(type(number) is int and number >= 0 for number in value)
        return None if is_list and [*value] == sorted({*value}) else ", not a list of whole numbers like [0, 64, 256]"

    return Option(name, (), problem)


def text(name: str, *, default: str | None = "") -> Option:
    """Return an option that is any text, or its default."""
    return Option(name, default, lambda value: None if isinstance(value, str) or value == default else ", not a text")


def field_of_docs(name: str) -> Option:
    """Return an option that names a field of the docs, such as doc.passage_id; "" for none."""

    def problem(value: Any) -> str | None:
        is_field = isinstance(value, str) and (value == "" or (value.startswith(DOC) and value != DOC))
        return None if is_field else ", not a field of the docs such as doc.passage_id"

    return Option(name, "", problem)


def pattern(name: str) -> Option:
    """Return an option that is a regular expression, or "" for none."""

    def problem(value: Any) -> str | None:
        if not isinstance(value, str):
            return ", not a text"
        try:
            re.compile(value)
        except re.error as error:
            return f", not a regular expression: {error}"
        return None

    return Option(name, "", problem)


def one_of(name: str, values: Collection[str], *, default: str, what: str = "there are") -> Option:
    """Return an option that is one of several texts, or its default; ``what`` comes before their list in errors."""

    def problem(value: Any) -> str | None:
        return None if value in (default, *values) else f"{nearest(value, values)}; {what} {', '.join(values)}"

    return Option(name, default, problem)
