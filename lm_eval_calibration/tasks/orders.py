"""The same doc with its choices in another order: part of a model's confidence is only the letter A.

Which fields of a doc hold its choices, no configuration says. They are found by putting a mark into each candidate
field and looking at the prompt: the right ones are those whose marks all appear in it, once and in order.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Doc = dict[str, Any]
Path = tuple[Any, ...]
"""Keys and indices that lead to a field of a doc."""


def rotations(doc_hash: str, n_orders: int, n_choices: int) -> tuple[int, ...]:
    """Return by how many places the choices are rotated in each order: 0, and others drawn with the doc's hash."""
    others = np.random.default_rng(int(doc_hash[:16], 16)).permutation(np.arange(1, n_choices))
    return (0, *sorted(others[: n_orders - 1].tolist()))


def rotated(doc: Mapping[str, Any], slots: Sequence[Path], rotation: int) -> Doc:
    """Return a copy of the doc in which slot j holds what slot j + rotation held."""
    values = [_get(doc, slot) for slot in slots]
    return _filled(doc, slots, [*values[rotation:], *values[:rotation]])


def in_own_order(shown: Sequence[float], rotation: int) -> tuple[float, ...]:
    """Return values of the choices as shown under a rotation in the doc's own order."""
    start = len(shown) - rotation
    return (*shown[start:], *shown[:start])


def replace_last(text: str, old: str, new: str) -> str | None:
    """Put new in place of the last old, or None where there is no old (chat templates may strip its ends)."""
    for was, becomes in ((old, new), (old.strip(), new.strip())):
        if was and was in text:
            before, _, after = text.rpartition(was)
            return before + becomes + after
    return None


def find_slots(
    doc: Mapping[str, Any],
    choices: Sequence[str],
    to_text: Callable[[Doc], Any],
    to_choice: Callable[[Doc], Any],
) -> list[Path] | None:
    """Find the fields whose texts the prompt lists, or None where it lists no choices.

    Args:
        doc: the doc.
        choices: its choices, texts or labels.
        to_text: makes the prompt of a doc.
        to_choice: makes the choices of a doc.
    """
    found = [slots for slots in _candidates(doc, len(choices)) if _are_listed(doc, slots, choices, to_text, to_choice)]
    # Labels beside the texts are listed, too; the texts are what must move.
    return next((slots for slots in found if not are_labels([_get(doc, slot) for slot in slots])), None)


def are_labels(choices: Sequence[str]) -> bool:
    """Whether these are the letters or numbers of choices ("A", "(b)", "1."), not their texts."""
    bare = [re.sub(r"[\W_]", "", choice) for choice in choices]
    if all(len(label) == 1 and label.isalpha() for label in bare):
        return len(set(bare)) == len(bare)
    numbers = [str(i) for i in range(len(bare) + 1)]
    return bare in (numbers[:-1], numbers[1:])


def _candidates(doc: Mapping[str, Any], n: int) -> Iterator[list[Path]]:
    """Yield n text fields that belong together: a list of n, or keys that differ in their last letter or number."""
    for path, value in _nodes(doc, ()):
        if isinstance(value, list) and len(value) == n and all(isinstance(v, str) for v in value):
            yield [(*path, index) for index in range(n)]
        elif isinstance(value, Mapping):
            families: dict[str, list[str]] = {}
            for key in value:
                if isinstance(value[key], str) and (match := re.fullmatch(r"(.*?)(\d+|[A-Za-z])", str(key))):
                    families.setdefault(match.group(1), []).append(key)
            yield from ([(*path, key) for key in sorted(family)] for family in families.values() if len(family) == n)


def _nodes(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, Mapping):
        for key in value:
            yield from _nodes(value[key], (*path, key))


def _are_listed(
    doc: Mapping[str, Any],
    slots: Sequence[Path],
    choices: Sequence[str],
    to_text: Callable[[Doc], Any],
    to_choice: Callable[[Doc], Any],
) -> bool:
    marks = [f"zq{index}x" for index in range(len(slots))]
    marked = _filled(doc, slots, marks)
    try:
        text, shown = to_text(marked), list(to_choice(rotated(doc, slots, 1)))
    except Exception:  # a function of the task may take nothing but its own texts
        return False
    if not isinstance(text, str) or shown not in (list(choices), [*choices[1:], *choices[:1]]):
        return False
    places = [text.lower().find(mark) for mark in marks]
    return -1 not in places and places == sorted(places) and all(text.lower().count(mark) == 1 for mark in marks)


def _get(doc: Any, path: Path) -> Any:
    for key in path:
        doc = doc[key]
    return doc


def _filled(doc: Mapping[str, Any], slots: Sequence[Path], values: Sequence[Any]) -> Doc:
    filled = copy.deepcopy(dict(doc))
    for slot, value in zip(slots, values, strict=True):
        parent = _get(filled, slot[:-1])
        parent[slot[-1]] = value
    return filled
