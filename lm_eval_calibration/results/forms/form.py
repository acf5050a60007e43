"""What a form is: how the files that another program wrote of some docs are told from others, and read.

Each form is one module here with an object ``FORM``; nobody keeps a list of them (see
:func:`~lm_eval_calibration.results.forms.registry.forms`).
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.records import ChoicesRecord, Record, ScoredRecord


class Sample(NamedTuple):
    """A line of a samples file, or what another program logged of a doc.

    Attributes:
        record: of the doc.
        line: all that was logged of it, under the harness's names: doc, target, arguments, resps.
    """

    record: Record
    line: Mapping[str, Any]


class About(NamedTuple):
    """What a file says of its docs as a whole.

    Attributes:
        model: its name.
        tasks: those that have docs here.
        time: when the run ended, as the harness writes it; "" where the file doesn't say.
    """

    model: str
    tasks: Sequence[str]
    time: str = ""


class NoConfidenceError(ValueError):
    """Docs that are sound, but nothing to calibrate: texts without probabilities, or several gold answers."""


class Form(ABC):
    """A program's files.

    Attributes:
        name: whose they are, for people.
    """

    name: str

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether a file that begins so holds docs in this form; no, where files don't tell."""
        return False

    @abstractmethod
    def about(self, path: Path) -> About:
        """Return what a file says as a whole; raise ValueError naming the file where it can't be read."""

    @abstractmethod
    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield a file's docs of a task; raise ValueError naming file, doc and value, or NoConfidenceError."""

    def without_docs(self, path: Path, head: bytes) -> str:
        """Return what to do about a file that is the program's, too, but holds no docs; "" for all other files."""
        return ""

    def sample(self, task: str, row: int, identity: Any, numbers: Mapping[str, Any], line: Mapping[str, Any]) -> Sample:
        """Return a doc.

        Args:
            task: its task.
            row: where it stands in the file, from 0.
            identity: what is the same of a doc in every run.
            numbers: log_likelihoods and gold, or confidence (0 to 1) and correct; None where one is not known.
            line: what was logged of it.

        Raises:
            ValueError: numbers that can't be.
        """
        doc_id = numbers.get("doc_id", row)
        common: dict[str, Any] = {
            "task": task,
            "doc_id": doc_id,
            "doc_hash": digest(identity),
            "prompt_hash": "",
            "cluster": numbers.get("cluster"),
            "certificate": {"source": self.name, "distributions": "none"},
        }
        line = {"doc_id": doc_id, **line}
        if "log_likelihoods" not in numbers:
            told = {f"answer_{name}": numbers[name] for name in ("confidence", "correct")}
            return Sample(ScoredRecord(**common, **told), line)
        values = tuple(number("log_likelihoods", value) for value in numbers["log_likelihoods"])
        if values and max(values) > 1e-3:
            raise ValueError(f"log_likelihoods are {list(values)}; none is above 0")
        return Sample(ChoicesRecord(**common, log_likelihoods=values, gold=numbers["gold"]), line)


@contextmanager
def at(place: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Raise ValueErrors, and these errors, as ValueErrors that name the place; a NoConfidenceError stays one."""
    named: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except NoConfidenceError as error:
        raise NoConfidenceError(f"{place}: {error}") from error
    except named as error:
        raise ValueError(f"{place}: {error}") from error


def digest(identity: Any) -> str:
    """Return a hash of what a doc is told by."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def number(field: str, value: Any) -> float:
    """Return a number, or text that is one; raise ValueError naming field and value."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{field} is {value!r:.60}, not a number") from None
    if math.isnan(found):
        raise ValueError(f"{field} is nan")
    return found


def stated(place: str | Path, confidence: Any) -> float | None:
    """Return a confidence that may be missing; raise ValueError naming the place where it is no number."""
    with at(place):
        return None if confidence is None else number("confidence", confidence)


def whole(field: str, value: Any) -> int:
    """Return a whole number, or text that is one; true and false are an outcome, too."""
    known = {"true": 1, "false": 0}
    if field == "correct" and str(value).strip().lower() in known:
        return known[str(value).strip().lower()]
    found = number(field, value)
    if not found.is_integer():
        raise ValueError(f"{field} is {value!r}, not a whole number")
    return int(found)


def shares(confidences: Sequence[float | None]) -> list[float | None]:
    """Return stated confidences as probabilities: where one of them is above 1, all are percentages."""
    known = [value for value in confidences if value is not None]
    scale = 100 if max(known, default=0) > 1 else 1
    return [None if value is None else value / scale for value in confidences]
