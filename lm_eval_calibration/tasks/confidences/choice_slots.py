"""The same doc with its choices in another order: part of a model's confidence is only the letter A.

No configuration tells which fields of a doc hold its choices. They are found by putting a mark into each candidate
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
    """Return by how many positions the choices are rotated in each order: 0, and others drawn with the doc's hash."""
    others = np.random.default_rng(int(doc_hash[:16], 16)).permutation(np.arange(1, n_choices))
    return (0, *sorted(others[: n_orders - 1].tolist()))


def in_own_order(shown: Sequence[float], rotation: int) -> tuple[float, ...]:
    """Return values of the choices as shown under a rotation in the doc's own order."""
    start = len(shown) - rotation
    return (*shown[start:], *shown[:start])


def replace_last(text: str, old: str, new: str) -> str | None:
    """Replace the last old by new; return None where there is no old.

    Without the spaces around them, which chat templates may strip: with them, old might be found in an earlier
    few-shot example only.
    """
    if not old.strip() or old.strip() not in text:
        return None
    before, _, after = text.rpartition(old.strip())
    return before + new.strip() + after


class Slots:
    """Where a doc holds the texts of its choices: a list of them, or fields that differ in their last sign.

    Args:
        path: keys that lead to the list, or to the mapping with the fields.
        keys: the fields, in order; empty for a list.
    """

    def __init__(self, path: Path, keys: tuple[str, ...] = ()) -> None:
        self.path, self.keys = path, keys

    def __str__(self) -> str:
        return ".".join(map(str, (*self.path, " ".join(self.keys)) if self.keys else self.path))

    def texts(self, doc: Mapping[str, Any]) -> list[str] | None:
        """Return the texts, or None where the doc has none there."""
        try:
            holder = _get(doc, self.path)
            texts = [holder[key] for key in self.keys] if self.keys else holder
        except (KeyError, TypeError):
            return None
        return list(texts) if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None

    def filled(self, doc: Mapping[str, Any], texts: Sequence[str]) -> Doc:
        """Return a copy of the doc with other texts there."""
        copied = copy.deepcopy(dict(doc))
        holder = _get(copied, self.path)
        for key, text in zip(self.keys or range(len(texts)), texts, strict=True):
            holder[key] = text
        return copied

    def rotated(self, doc: Mapping[str, Any], rotation: int) -> Doc:
        """Return a copy of the doc whose choice j is choice j + rotation of the doc."""
        texts = self.texts(doc) or []
        return self.filled(doc, [*texts[rotation:], *texts[:rotation]])


def find_slots(
    docs: Sequence[Mapping[str, Any]], to_text: Callable[[Doc], Any], to_choice: Callable[[Doc], Any]
) -> list[Slots]:
    """Return the slots whose texts the prompts of all these docs list as their choices: one, if all is well.

    Args:
        docs: some docs of a task.
        to_text: makes the prompt of a doc.
        to_choice: makes the choices of a doc, texts or labels.
    """
    listed = [(doc, list(to_choice(dict(doc)))) for doc in docs]
    found = [
        slots
        for slots in _candidates(docs[0])
        if all(_are_listed(slots, doc, choices, to_text, to_choice) for doc, choices in listed)
    ]
    # Labels beside the texts are listed, too; the texts are what must move. (A doc's texts may look like labels.)
    return [slots for slots in found if not all(are_labels(slots.texts(doc) or []) for doc in docs)]


def are_labels(choices: Sequence[str]) -> bool:
    """Whether these are the letters or numbers of choices ("A", "(b)", "1."), not their texts."""
    bare = [re.sub(r"[\W_]", "", choice) for choice in choices]
    if all(len(label) == 1 and label.isalpha() for label in bare):
        return len(set(bare)) == len(bare)
    numbers = [str(i) for i in range(len(bare) + 1)]
    return bare in (numbers[:-1], numbers[1:])


def _candidates(doc: Mapping[str, Any]) -> Iterator[Slots]:
    """Yield every list of texts, and every family of text fields whose names differ in their last letter or number."""
    for path, value in _nodes(doc, ()):
        if isinstance(value, list):
            yield Slots(path)
        elif isinstance(value, Mapping):
            families: dict[str, list[tuple[int, str]]] = {}
            for key in value:
                if isinstance(value[key], str) and (match := re.fullmatch(r"(.*?)(\d+|[A-Za-z])", str(key))):
                    sign = match.group(2)
                    position = int(sign) if sign.isdigit() else ord(sign)
                    families.setdefault(match.group(1), []).append((position, key))
            for family in families.values():
                yield Slots(path, tuple(key for _, key in sorted(family)))


def _nodes(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, Mapping):
        for key in value:
            yield from _nodes(value[key], (*path, key))


def _are_listed(
    slots: Slots,
    doc: Mapping[str, Any],
    choices: list[str],
    to_text: Callable[[Doc], Any],
    to_choice: Callable[[Doc], Any],
) -> bool:
    """Whether the prompt lists these texts in order, and the choices are labels or move with them."""
    if len(slots.texts(doc) or ()) != len(choices):
        return False
    marks = [f"zq{index}x" for index in range(len(choices))]
    try:
        text = to_text(slots.filled(doc, marks))
        moved = list(to_choice(slots.rotated(doc, 1)))
    except Exception:  # a function of the task may take nothing but its own texts
        return False
    if not isinstance(text, str) or (
        moved != [*choices[1:], *choices[:1]] and not (moved == choices and are_labels(choices))
    ):
        return False
    shown = re.findall(r"zq\d+x", text.lower())
    return bool(shown) and shown == marks * (len(shown) // len(marks))


def _get(doc: Any, path: Path) -> Any:
    for key in path:
        doc = doc[key]
    return doc
