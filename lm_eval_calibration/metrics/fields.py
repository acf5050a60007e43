"""Fields of docs (ward, language, source ...) as numbers, and the groups of docs that they and their pairs make."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_calibration.metrics.validation import IntArray

FEWEST_DOCS = 20
"""Docs of a group, below which nothing is said of it."""

Key = tuple[tuple[str, str], ...]
"""What a group is: one or two pairs of a field and its value."""


@dataclass(frozen=True)
class Field:
    """One field of N docs.

    Attributes:
        values: its V values, as text.
        codes: [N] index of each doc's value, -1 where it has none.
    """

    values: tuple[str, ...]
    codes: IntArray

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Return the field of docs with these values, [N]; "" is none."""
        names, codes = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
        if len(names) and names[0] == "":
            return cls(tuple(names[1:].tolist()), codes - 1)
        return cls(tuple(names.tolist()), codes)

    def take(self, which: IntArray) -> Self:
        """Return the field of these docs, with all its values."""
        return type(self)(self.values, self.codes[which])

    def has(self, value: str) -> NDArray[np.bool_]:
        """[N] where docs have this value."""
        return np.asarray(self.codes == self.values.index(value)) if value in self.values else self.codes < -1


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Division:
    """Docs divided by one field, or by two at once.

    Attributes:
        keys: what each part is.
        codes: [N] index of each doc's part, -1 where it is in none.
    """

    keys: tuple[Key, ...]
    codes: IntArray


def divisions(fields: Fields) -> Iterator[Division]:
    """Divide docs by every field, then by every pair of fields."""
    for name, field in fields.items():
        yield Division(tuple(((name, value),) for value in field.values), field.codes)
    for (one, first), (other, second) in combinations(fields.items(), 2):
        keys = tuple(((one, a), (other, b)) for a in first.values for b in second.values)
        both = (first.codes >= 0) & (second.codes >= 0)
        yield Division(keys, np.where(both, first.codes * len(second.values) + second.codes, -1))


def groups_of(fields: Fields) -> dict[Key, IntArray]:
    """Return the rows of every group of at least 20 docs, but not all docs; of several groups of equal docs the first.

    Which groups there are depends on fields alone, never on answers.
    """
    found: dict[Key, IntArray] = {}
    known = set()
    for division in divisions(fields):
        counts = np.bincount(division.codes + 1, minlength=len(division.keys) + 1)[1:]
        for part in np.flatnonzero((counts >= FEWEST_DOCS) & (counts < len(division.codes))).tolist():
            rows = np.flatnonzero(division.codes == part)
            if (docs := rows.tobytes()) not in known:
                known.add(docs)
                found[division.keys[part]] = rows
    return found


def named(key: Key) -> str:
    """Return a group's name: "doc.ward = ICU, doc.sex = f"."""
    return ", ".join(f"{field} = {value}" for field, value in key)
