"""TEMP"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class LocatedAnswer(NamedTuple):
    answer: Any
    span: tuple[int, int] | None
    is_found: bool


def locate_answer(ensemble: Any, text: str, doc: Mapping[str, Any], answer: Any = None) -> LocatedAnswer:
    text = str(text)
    if not isinstance(answer, str):
        return LocatedAnswer(answer, None, answer is not None)
    if answer in ("", "[invalid]"):
        return LocatedAnswer(answer, None, False)
    start = text.rfind(answer)
    return LocatedAnswer(answer, None if start < 0 else (start, start + len(answer)), True)
