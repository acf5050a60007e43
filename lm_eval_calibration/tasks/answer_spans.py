"""Where in a generated text the answer stands that a task's filter takes from it.

The filters of the harness are followed step by step, with the characters of the text that the current string stands
for. Any other filter is applied, and followed where it searches as one of these does and finds the same answer; else
its answer is looked for in the text.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.api.filter import Filter, FilterEnsemble
from lm_eval.filters import extraction, selection, transformation

UNKNOWN: Any = object()
"""Stands for an answer that the caller doesn't know."""


class LocatedAnswer(NamedTuple):
    """An answer and where it stands.

    Attributes:
        answer: what the filter makes of the text.
        span: [start, end) characters of the text that the answer was taken from; None where it was not found.
        is_found: False where the filter found nothing: its answer is its fallback, None or blank.
        problem: why an answer that was found has no span.
    """

    answer: Any
    span: tuple[int, int] | None
    is_found: bool
    problem: str = ""


class _Traced(NamedTuple):
    """What the filters have made of the text so far: a value, mostly a string.

    ``starts`` and ``ends`` hold, for each of its characters, the [start, end) characters of the text that it stands
    for; they are empty where that is not known.
    """

    value: Any
    starts: Sequence[int] = ()
    ends: Sequence[int] = ()
    is_found: bool = True

    @property
    def span(self) -> tuple[int, int] | None:
        return (self.starts[0], self.ends[-1]) if self.starts else None

    def part(self, start: int, end: int) -> "_Traced":
        return _Traced(self.value[start:end], self.starts[start:end], self.ends[start:end])

    def stripped(self) -> "_Traced":
        start = len(self.value) - len(self.value.lstrip())
        return self.part(start, max(start, len(self.value.rstrip())))

    def without(self, spans: Sequence[tuple[int, int]]) -> "_Traced":
        """Return the string without parts of it."""
        left_out = {i for start, end in spans for i in range(start, end)}
        kept = [i for i in range(len(self.value)) if i not in left_out]
        value = "".join(self.value[i] for i in kept)
        return _Traced(value, [self.starts[i] for i in kept], [self.ends[i] for i in kept])

    def with_case(self, change: Callable[[str], str]) -> "_Traced":
        """Return the string in lower or upper case, which may have more characters ("ß" and "SS")."""
        origins = [i for i, character in enumerate(self.value) for _ in change(character)]
        return _Traced(change(self.value), [self.starts[i] for i in origins], [self.ends[i] for i in origins])

    def replaced_by(self, value: Any) -> "_Traced":
        """Return a value that stands for the same part of the text as this one."""
        if self.span is None or value == self.value:
            return self._replace(value=value)
        length = len(value) if isinstance(value, str) else 1
        return _Traced(value, [self.span[0]] * length, [self.span[1]] * length, self.is_found)


def locate_answer(ensemble: FilterEnsemble, text: str, doc: Mapping[str, Any], answer: Any = UNKNOWN) -> LocatedAnswer:
    """Return the answer that a filter takes from a text, and where it stands in the text.

    Args:
        ensemble: the filter.
        text: as it was generated.
        doc: that the text answers.
        answer: what the filter made of the text, where that is known. Where it differs from what the filter makes of
            this text alone, the answer's last occurrence is its span.
    """
    whole = current = _whole(str(text))
    filters = [build() for build in ensemble.filters]
    is_listed = True  # a doc's samples, here one, are in a list until a filter takes one of them
    for i, filter_ in enumerate(filters):
        kind = type(filter_).apply
        if isinstance(current.value, str) and len(current.value) == 1:
            is_listed = True  # no filter can tell "A" and ["A"] apart
        if is_listed and kind in _SELECTIONS:
            is_listed = kind is not selection.TakeFirstFilter.apply
        elif is_listed and kind in _STEPS and current.is_found:
            current = _STEPS[kind](filter_, current, doc)
        else:
            later = [type(other).apply for other in filters[i + 1 :]]
            is_last = is_listed and all(kind in _SELECTIONS for kind in later)
            known = _sample(answer, is_listed=selection.TakeFirstFilter.apply not in later) if is_last else UNKNOWN
            current, is_listed = _other(filter_, current, doc, known, is_listed=is_listed)
    if answer is UNKNOWN:
        return _located(current, [current.value] if is_listed else current.value)
    sample = _sample(answer, is_listed=is_listed)
    if current.value != sample:
        fallbacks = [filter_.fallback for filter_ in filters if hasattr(filter_, "fallback")]
        current = _last_occurrence(whole, sample)._replace(is_found=sample not in fallbacks)
    return _located(current, answer)


def _whole(text: str) -> _Traced:
    return _Traced(text, range(len(text)), range(1, len(text) + 1))


def _located(traced: _Traced, answer: Any) -> LocatedAnswer:
    if not traced.is_found or _is_nothing(traced.value):
        return LocatedAnswer(answer, None, is_found=False)
    if isinstance(traced.value, list | tuple):
        return LocatedAnswer(answer, None, is_found=True, problem="the filter gives a list")
    problem = "" if traced.span else "the filter's answer stands nowhere in the text"
    return LocatedAnswer(answer, traced.span, is_found=True, problem=problem)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], ())


def _sample(answer: Any, *, is_listed: bool) -> Any:
    """Return the one sample's answer of a list of samples' answers; else the answer."""
    return answer[0] if is_listed and isinstance(answer, list) and len(answer) == 1 else answer


# --- the harness's filters -------------------------------------------------------------------------------------------


def _selected(regex: Any, number: int, text: _Traced) -> _Traced | None:
    """Return what ``findall(text)[number]`` holds first, stripped; None where nothing matches.

    Of several groups that is the first one that isn't empty.
    """
    matches = list(regex.finditer(text.value))
    if not -len(matches) <= number < len(matches):
        return None
    match = matches[number]
    groups = list(range(1, regex.groups + 1)) or [0]
    if regex.groups > 1:
        groups = [group for group in groups if match[group]]
    if not groups:
        return None
    start, end = match.span(groups[0])
    return text.part(max(start, 0), max(end, 0)).stripped()


def _fallback(filter_: Any) -> _Traced:
    return _Traced(filter_.fallback, is_found=False)


def _regex(filter_: Any, text: _Traced, doc: Any) -> _Traced:
    return _selected(filter_.regex, filter_.group_select, text) or _fallback(filter_)


def _multi_choice(filter_: Any, text: _Traced, doc: Any) -> _Traced:
    """Follow ``multi_choice_regex``: its regex, else a choice's text, else a choice's letter after a colon."""
    letters = [chr(ord("A") + i) for i in range(len(doc["choices"]))]
    texts = [_without_ignored(filter_, _whole(c.strip())).value for c in doc["choices"]]
    searches: list[tuple[Any, _Traced, dict[str, str]]] = [
        (filter_.regex, text, {}),
        (
            re.compile("|".join(sorted(map(re.escape, texts), key=len, reverse=True))),
            _without_ignored(filter_, text),
            {choice: f"({letter})" for choice, letter in zip(texts, letters, strict=True)},
        ),
        (re.compile(rf":[\s]*({'|'.join(letters)})"), text, {letter: f"({letter})" for letter in letters}),
    ]
    for regex, searched, meanings in searches:
        found = _selected(regex, filter_.group_select, searched)
        if found is not None and found.value:
            return found.replaced_by(meanings.get(found.value, found.value))
    return _fallback(filter_)


def _without_ignored(filter_: Any, text: _Traced) -> _Traced:
    """Return a text without what the filter ignores when it looks for choices."""
    for regex in getattr(filter_, "regexes_to_ignore", None) or ():
        text = text.without([match.span() for match in re.finditer(regex, text.value)])
    if getattr(filter_, "ignore_case", False):
        text = text.with_case(str.lower)
    if getattr(filter_, "ignore_punctuation", False):
        is_punctuation = [unicodedata.category(character).startswith("P") for character in text.value]
        text = text.without([(i, i + 1) for i, is_one in enumerate(is_punctuation) if is_one])
    return text


def _map(filter_: Any, text: _Traced, doc: Any) -> _Traced:
    if text.value in filter_.mapping_dict:
        return text.replaced_by(filter_.mapping_dict[text.value])
    return _Traced(filter_.default_value, is_found=False)


_STEPS: Mapping[Any, Callable[[Any, _Traced, Any], _Traced]] = {
    extraction.RegexFilter.apply: _regex,
    extraction.MultiChoiceRegexFilter.apply: _multi_choice,
    extraction.WhitespaceFilter.apply: lambda filter_, text, doc: text.stripped(),
    transformation.LowercaseFilter.apply: lambda filter_, text, doc: text.with_case(str.lower),
    transformation.UppercaseFilter.apply: lambda filter_, text, doc: text.with_case(str.upper),
    transformation.MapFilter.apply: _map,
}
"""Filters of every sample of a doc, by the method that filters: a subclass may have one of its own."""

_SELECTIONS = (selection.TakeFirstFilter.apply, selection.TakeKFilter.apply, selection.MajorityVoteFilter.apply)
"""Filters that select among a doc's samples."""


# --- other filters ---------------------------------------------------------------------------------------------------


def _other(filter_: Any, current: _Traced, doc: Any, answer: Any, *, is_listed: bool) -> tuple[_Traced, bool]:
    """Return what a filter of somebody's own makes of a value, and whether a list of samples is left.

    Where the answer is known, the filter is applied only if that shows how it searches.
    """
    value = answer
    searches: list[tuple[Any, str]] = []
    if value is UNKNOWN or hasattr(filter_, "find_match"):
        searches = _recorded_searches(filter_)
        value, is_listed = _applied(filter_, current.value, doc, is_listed=is_listed)
    if not current.is_found or not isinstance(current.value, str):
        return current.replaced_by(value), is_listed
    fallbacks = [filter_.fallback] if hasattr(filter_, "fallback") else []
    if _is_nothing(value) or value in fallbacks:
        return _Traced(value, is_found=False), is_listed
    found = _repeated(searches, filter_, current) or _by_own_regex(filter_, current, value)
    return (found.replaced_by(value) if found else _last_occurrence(current, value)), is_listed


def _applied(filter_: Filter, value: Any, doc: Any, *, is_listed: bool) -> tuple[Any, bool]:
    """Return what a filter makes of a value, and whether that is a list of samples."""
    made = next(iter(filter_.apply([[value]] if is_listed else [value], [doc])))
    return (made[0], True) if is_listed and isinstance(made, list) and len(made) == 1 else (made, False)


def _recorded_searches(filter_: Any) -> list[tuple[Any, str]]:
    """Return a list that will hold the successful searches of a filter with a method ``find_match(regex, text, ...)``.

    The filters of BBH are such. One search after another is tried until one succeeds.
    """
    searches: list[tuple[Any, str]] = []
    if hasattr(filter_, "find_match"):
        find_match = filter_.find_match

        def recording(regex: Any, text: str, *rest: Any, **options: Any) -> Any:
            found = find_match(regex, text, *rest, **options)
            if found:
                searches.append((regex, text))
            return found

        filter_.find_match = recording
    return searches


def _repeated(searches: Sequence[tuple[Any, str]], filter_: Any, current: _Traced) -> _Traced | None:
    """Return what the first successful search found; None where it was not of this text."""
    for regex, searched in searches[:1]:
        for text in (current, _without_ignored(filter_, current), current.with_case(str.lower)):
            if text.value == searched:
                return _selected(regex, filter_.group_select, text)
    return None


def _by_own_regex(filter_: Any, current: _Traced, answer: Any) -> _Traced | None:
    """Return what a filter's own regex finds, where that is the filter's answer."""
    if not (hasattr(filter_, "regex") and hasattr(filter_, "group_select")):
        return None
    found = _selected(filter_.regex, filter_.group_select, current)
    return found if found is not None and found.value == answer else None


def _last_occurrence(text: _Traced, answer: Any) -> _Traced:
    """Return the last place of a text where an answer stands, not inside a longer number or word (of ASCII letters)."""
    if not isinstance(answer, str) or not isinstance(text.value, str) or not answer.strip():
        return _Traced(answer)
    before, after = _not_beside(answer[0]), _not_beside(answer[-1])
    places = list(re.finditer(f"(?<!{before})(?={re.escape(answer)}(?!{after}))", text.value))
    return text.part(places[-1].start(), places[-1].start() + len(answer)) if places else _Traced(answer)


def _not_beside(character: str) -> str:
    if not character.isascii() or not character.isalnum():
        return r"[^\s\S]"
    return "[0-9]" if character.isdigit() else "[A-Za-z]"
