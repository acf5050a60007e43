"""Fields of docs that divide them into groups: those with few values, which say nothing of the right answer."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.fields import FEWEST_DOCS, Field
from lm_eval_calibration.records.clusters import DOC
from lm_eval_calibration.results.grouping import TASK, check_grouping
from lm_eval_calibration.results.task_docs import TaskDocs

ALL = "all"
"""Names every field."""

MOST_VALUES = 100
LONGEST_VALUE = 100
"""Characters; longer texts are no names of groups."""

TELLS = 0.9
"""A field whose value tells the right answer of so many docs is no group that is known before the answer."""

TELLS_THE_ANSWER = "tells the right answer"

Found = tuple[dict[str, Field], dict[str, str]]


def names_of(groups: str) -> tuple[str, ...] | None:
    """Return the fields that ``--groups`` names, None for all; raise UserError for what is no field."""
    if groups == ALL:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in groups.split(",") if name.strip()))
    for name in names:
        check_grouping(name)
    if not names:
        raise UserError("--groups names no field: it is all, or fields such as doc.ward,doc.language")
    return names


def fields_of(tasks: Sequence[TaskDocs], rows: Sequence[Sequence[int]], groups: str) -> Found:
    """Return the fields of some docs of some tasks, [N] task after task, and why others make no groups.

    Args:
        tasks: of the run.
        rows: of each task its docs.
        groups: "all", or names of fields with commas between, "task" and "doc.ward" say.

    Raises:
        UserError: a field that was named is in no doc, or makes no groups.
    """
    wanted = names_of(groups)
    reader = _Reader(sum(map(len, rows)), wanted)
    first = 0
    for docs, which in zip(tasks, rows, strict=True):
        places = {docs.locations[i]: first + k for k, i in enumerate(which)}
        for file in {file.path: file for file, _ in places}.values():
            for start, line in file.lines():
                if (row := places.get((file, start))) is not None:
                    reader.add(row, docs.name, line.get("doc"), line.get("target"))
        first += len(which)
    return reader.found()


class _Reader:
    """Takes docs one by one; of each field it keeps a number a doc, and nothing of one with too many values."""

    def __init__(self, n_docs: int, wanted: tuple[str, ...] | None) -> None:
        self.n_docs, self.wanted = n_docs, wanted
        self.codes: dict[str, Any] = {}
        self.values: dict[str, dict[str, int]] = defaultdict(dict)
        self.targets: dict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        self.left_out: dict[str, str] = {}
        self.is_redacted = False

    def add(self, row: int, task: str, doc: Any, target: Any) -> None:
        """Take the doc of a row."""
        self.is_redacted |= doc is None
        pairs = [(TASK, task), *_scalars(doc, DOC.removesuffix("."))]
        for name, value in pairs:
            if name in self.left_out or (self.wanted is not None and name not in self.wanted):
                continue
            text = _text(value)
            if text is not None and (reason := _unfit(value, text)):
                self._leave_out(name, reason)
            elif text is not None:
                self._take(row, name, text, (task, text, repr(target)))

    def _take(self, row: int, name: str, text: str, told: tuple[str, str, str]) -> None:
        values = self.values[name]
        if name not in self.codes:
            self.codes[name] = np.full(self.n_docs, -1, dtype=np.int64)
        self.codes[name][row] = values.setdefault(text, len(values))
        if name != TASK:
            self.targets[name][told] += 1
        if len(values) > MOST_VALUES:
            self._leave_out(name, f"more than {MOST_VALUES} values")

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        for kept in (self.codes, self.values, self.targets):
            kept.pop(name, None)

    def found(self) -> Found:
        """Return the fields that make groups, by name, and the reasons why others don't."""
        if self.is_redacted:
            self.left_out["doc"] = "logged without its fields (redacted)"
        for name in list(self.codes):
            reason = self._no_groups(name)
            if reason == TELLS_THE_ANSWER or (reason and self.wanted is None):  # who names a field knows its values
                self._leave_out(name, reason)
        for name in self.wanted or ():
            if name not in self.codes:
                why = self.left_out.get(name) or self.left_out.get("doc") or "no doc has it"
                raise UserError(f"--groups {name}: {why}")
        fields = {}
        for name in sorted(self.codes, key=lambda name: (name != TASK, name)):
            names = sorted(self.values[name])
            order = np.array([names.index(value) for value in self.values[name]] + [-1])
            fields[name] = Field(tuple(names), order[self.codes[name]])
        return fields, dict(sorted(self.left_out.items()))

    def _no_groups(self, name: str) -> str | None:
        """Why a field makes no groups; None where it does."""
        counts = np.bincount(self.codes[name] + 1, minlength=2)[1:]
        if len(counts) == 1 and counts[0] == self.n_docs:
            return "one value"
        if counts.max() < FEWEST_DOCS:
            return f"fewer than {FEWEST_DOCS} docs of each value"
        return TELLS_THE_ANSWER if _tells(self.targets[name]) else None


def _scalars(doc: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Names and values of a doc's fields, those of fields within fields, too."""
    if isinstance(doc, Mapping):
        for key, value in doc.items():
            yield from _scalars(value, f"{name}.{key}")
    elif doc is not None:
        yield name, doc


def _text(value: Any) -> str | None:
    """A value as a group's name; None where there is none."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value)


def _unfit(value: Any, text: str) -> str | None:
    if not isinstance(value, str | int | float | bool):
        return "no single value"
    return "texts" if len(text) > LONGEST_VALUE else None


def _tells(counts: Counter[tuple[str, str, str]]) -> bool:
    """Whether the field says what the right answer of nine docs of ten is, where the task alone does not."""
    of_value: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    of_task: dict[str, Counter[str]] = defaultdict(Counter)
    for (task, text, target), n in counts.items():
        of_value[task, text][target] += n
        of_task[task][target] += n
    total = sum(counts.values())
    told, known = (sum(max(c.values()) for c in by.values()) for by in (of_value, of_task))
    return told >= TELLS * total > known
