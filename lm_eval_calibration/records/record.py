"""The record of one doc: everything that metrics, reports and recalibration need, written by tasks.

It is the field ``calibration`` of a line of ``samples_*.jsonl``. Unknown fields are kept, unknown versions refused.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.records import columns
from lm_eval_calibration.records.columns import Columns, Judged
from lm_eval_calibration.records.corpus import Corpus
from lm_eval_calibration.records.generation import Generation
from lm_eval_calibration.records.stated import Asked
from lm_eval_calibration.records.temperature_grid import TokenTemperatures

RECORD_VERSION = 1
"""Version of the record's form."""

DEFINITION_VERSION = 1
"""Version of the metrics' definitions; a change of any formula, binning or default changes it."""

RECORD_KEY = "calibration"
"""The field of a samples line that holds the record."""

OTHER_FILTER = "see the line of filter "
"""Begins what stands there in lines of a task's other filters: a doc has one record."""

OWN_KEYS = ("p_true", "verbalized")
"""Sources of stated confidences that have a key of their own in JSON; those of all others are in ``stated``."""

KINDS = ("multiple_choice", "generation", "corpus")

KEPT_PROB = columns.KEPT_PROB
"""Probabilities at least this large are stored, so Full-ECE can be computed later for any n_bins up to 20."""


@dataclass(frozen=True)
class Record:
    """One doc as a model answered it.

    Attributes:
        task: name of the task.
        doc_id: the doc's number in its split.
        doc_hash: the harness's hash of the doc.
        prompt_hash: the harness's hash of the (first) prompt.
        kind: ``multiple_choice``, ``generation`` or ``corpus``.
        log_likelihoods: of the choices, in nats, summed over each choice's tokens; empty for other kinds.
        gold: index of the right choice, or None where the doc's label is broken (and for other kinds).
        log_probs: of the reference's tokens (the gold choice, or a generation's reference answer); None where there is
            no reference or the backend gives no token distributions.
        large_probs: at each of these positions, every probability of at least ``kept_from``.
        kept_from: 0.05, or 1/n_bins of the run if that is less.
        vocab_size: entries of each distribution.
        certificate: how the numbers were obtained.
        choice_lengths: of the choices, in characters, as ``acc_norm`` counts them.
        rotations: by how many places the choices were rotated in each order in which they were asked; 0 first.
        rotated_log_likelihoods: of the choices under each of these orders, in the doc's own order of choices.
        temperatures: the doc's tokens at a grid of temperatures, where the run asked for it.
        stated: the confidences that the model stated, by their source, such as ``p_true`` or ``verbalized``.
        generation: what the model wrote; for the kind ``generation`` only.
        corpus: sums over the tokens of a text; for the kind ``corpus`` only.
        extra: optional fields that this version does not know.
    """

    task: str
    doc_id: int | None
    doc_hash: str
    prompt_hash: str
    kind: str
    log_likelihoods: tuple[float, ...] = ()
    gold: int | None = None
    log_probs: tuple[float, ...] | None = None
    large_probs: tuple[tuple[float, ...], ...] | None = None
    kept_from: float | None = None
    vocab_size: int | None = None
    certificate: Mapping[str, Any] = field(default_factory=dict)
    choice_lengths: tuple[int, ...] | None = None
    rotations: tuple[int, ...] | None = None
    rotated_log_likelihoods: tuple[tuple[float, ...], ...] | None = None
    temperatures: TokenTemperatures | None = None
    stated: Mapping[str, Asked] = field(default_factory=dict)
    generation: Generation | None = None
    corpus: Corpus | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no metric could be computed from."""
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; there is {', '.join(KINDS)}")
        if (self.log_probs is None) != (self.large_probs is None) or len(self.log_probs or ()) != len(
            self.large_probs or ()
        ):
            raise ValueError("log_probs and large_probs are not of the same positions")
        for kind, part in (("generation", self.generation), ("corpus", self.corpus)):
            if (part is None) != (self.kind != kind):
                raise ValueError(f"a record of kind {self.kind} {'lacks' if part is None else 'has'} a {kind}")
        if self.kind == "multiple_choice":
            self._check_choices()
        elif self.log_likelihoods or self.gold is not None:
            raise ValueError(f"a record of kind {self.kind} has log_likelihoods or gold, as if it had choices")

    def _check_choices(self) -> None:
        k = len(self.log_likelihoods)
        if k == 0 or not sum(self.log_likelihoods) < math.inf:  # any nan or infinity makes the sum one
            raise ValueError(f"log_likelihoods are {list(self.log_likelihoods)}")
        if self.gold is not None and not 0 <= self.gold < k:
            raise ValueError(f"gold is {self.gold}, but there are {k} choices")
        if self.choice_lengths is not None and (len(self.choice_lengths) != k or min(self.choice_lengths) < 0):
            raise ValueError(f"choice_lengths are {list(self.choice_lengths)}, but there are {k} choices")
        if len(self.rotations or ()) != len(self.rotated_log_likelihoods or ()) or any(
            len(order) != k for order in self.rotated_log_likelihoods or ()
        ):
            raise ValueError("rotations and rotated_log_likelihoods are not of the same orders and choices")

    @cached_property
    def probs(self) -> NDArray[np.float64]:
        """[n_choices] softmax of the log-likelihoods."""
        if self.kind != "multiple_choice":
            raise ValueError(f"{self.task} doc {self.doc_id}: a {self.kind} has no choices")
        return _softmax(self.log_likelihoods)

    @property
    def confidence(self) -> float | None:
        """Probability of the most probable choice; of a generation ``pavg``, None where it is undefined.

        A text of a corpus has none: it is no answer.
        """
        if self.corpus is not None:
            return None
        return float(self.probs.max()) if self.generation is None else self.generation.confidence

    @property
    def correct(self) -> int | None:
        """1 if the answer is right, else 0; None where the label is broken, and for a text of a corpus.

        The answer is the most probable choice (the first of equals, as the harness counts), or what was generated.
        """
        if self.generation is not None:
            return self.generation.correct
        return None if self.gold is None else int(int(np.argmax(self.log_likelihoods)) == self.gold)

    @property
    def rotated_probs(self) -> NDArray[np.float64]:
        """[n_orders, n_choices] choice probabilities under each order, in the doc's own order of choices."""
        if not self.rotated_log_likelihoods:
            raise ValueError(f"{self.task} doc {self.doc_id}: its choices were asked in one order only")
        return np.stack([_softmax(order) for order in self.rotated_log_likelihoods])

    def length_normalized(self) -> Self:
        """Return the record as ``acc_norm`` sees it: each choice's log-likelihood divided by its characters."""
        if self.choice_lengths is None:
            raise ValueError(f"{self.task} doc {self.doc_id}: the lengths of its choices were not recorded")
        with np.errstate(divide="ignore"):  # the harness, too, gives an empty choice no chance
            normalized = np.asarray(self.log_likelihoods) / np.asarray(self.choice_lengths)
        return replace(self, log_likelihoods=tuple(normalized.tolist()))

    def permuted(self) -> Self:
        """Return the record with the choice probabilities averaged over the orders of the choices."""
        with np.errstate(divide="ignore"):
            averaged = np.log(self.rotated_probs.mean(axis=0))
        return replace(self, log_likelihoods=tuple(averaged.tolist()))

    def self_consistent(self) -> Judged:
        """Return the doc as its samples answer it: the share of the most frequent answer, and whether it is right."""
        majority = None if self.generation is None else self.generation.majority
        if majority is None:
            raise ValueError(f"{self.task} doc {self.doc_id}: it was not answered several times")
        return Judged(self.task, self.doc_id, *majority)

    def asked(self, how: str) -> Judged:
        """Return the doc with the confidence that the model stated when asked (``p_true`` or ``verbalized``)."""
        if how not in self.stated:
            raise ValueError(f"{self.task} doc {self.doc_id}: the model was not asked for {how}")
        return Judged(self.task, self.doc_id, self.stated[how].confidence, self.correct)

    def gap_sums(self, n_bins: int) -> NDArray[np.float64]:
        """[n_bins] hits minus probability mass of each Full-ECE bin, summed over the reference's positions."""
        sums: NDArray[np.float64] = columns.doc_gap_sums([self], n_bins)[0]
        return sums

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready data; an infinite log-likelihood becomes null."""
        data: dict[str, Any] = {"version": RECORD_VERSION, "definitions": DEFINITION_VERSION}
        data |= {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        keep = {"correct", "gold" if self.kind == "multiple_choice" else "confidence"}
        if self.kind == "multiple_choice":
            data["log_likelihoods"] = [_finite(x) for x in self.log_likelihoods]
        else:
            del data["log_likelihoods"]
        if self.generation is not None:
            data["generation"] = self.generation.to_dict()
        if self.corpus is not None:
            data["corpus"] = self.corpus.to_dict()
        if self.log_probs is not None and self.large_probs is not None:
            data["log_probs"] = [_finite(x) for x in self.log_probs]
            data["large_probs"] = [list(position) for position in self.large_probs]
        if self.rotated_log_likelihoods is not None:
            data["rotated_log_likelihoods"] = [[_finite(x) for x in order] for order in self.rotated_log_likelihoods]
        if self.temperatures is not None:
            data["temperatures"] = self.temperatures.to_dict()
        stated = {source: asked.to_dict() for source, asked in self.stated.items()}
        data |= {source: stated.pop(source) for source in OWN_KEYS if source in stated} | {"stated": stated or None}
        data |= {"confidence": self.confidence, "correct": self.correct}
        return {key: value for key, value in data.items() if value is not None or key in keep} | dict(self.extra)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a record; raise ValueError if its version is not ours or a field is missing."""
        if data.get("version") != RECORD_VERSION:
            raise ValueError(f"record version {data.get('version')!r} is not {RECORD_VERSION}")
        if data.get("definitions") != DEFINITION_VERSION:
            raise ValueError(f"definition version {data.get('definitions')!r} is not {DEFINITION_VERSION}")
        stated = {source: data[source] for source in OWN_KEYS if data.get(source)} | (data.get("stated") or {})
        known = {**_DEFAULTS, **({} if data.get("kind") == "multiple_choice" else _NO_CHOICES), **data}
        for name in _NOT_FIELDS:
            known.pop(name, None)
        extra = {}
        if known.keys() != _FIELDS:
            extra = {name: known.pop(name) for name in known.keys() - _FIELDS}
            if missing := sorted(_FIELDS - known.keys()):
                raise ValueError(f"record of {data.get('task')} doc {data.get('doc_id')}: no {', '.join(missing)}")
        known["stated"] = {source: Asked.from_dict(asked) for source, asked in stated.items()}
        for name, parse in _PARSE.items():
            if known[name] is not None:
                known[name] = parse(known[name])
        if data.get("generation") is not None:
            known["generation"] = Generation.from_dict(data["generation"], data.get("correct"))
        if data.get("corpus") is not None:
            known["corpus"] = Corpus.from_dict(data["corpus"])
        record = cls.__new__(cls)  # the generated __init__ of a frozen class takes twice as long as all of this
        record.__dict__.update(known, extra=extra)
        record.__post_init__()
        return record


def _floats(values: Iterable[float | None]) -> tuple[float, ...]:
    """Numbers as JSON holds them, where null is an infinite log-likelihood."""
    numbers: tuple[Any, ...] = tuple(values)
    return tuple([-math.inf if x is None else x for x in numbers]) if None in numbers else numbers


def _tuples(values: Iterable[Iterable[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values))


_FIELDS = frozenset(f.name for f in fields(Record)) - {"extra"}
_NOT_FIELDS = ("version", "definitions", "confidence", "correct", *OWN_KEYS)
_DEFAULTS = {f.name: f.default for f in fields(Record) if f.default is not MISSING}
_DEFAULTS |= {"doc_id": None, "certificate": {}, "stated": {}}
_NO_CHOICES = {name: _DEFAULTS.pop(name) for name in ("log_likelihoods", "gold")}  # which other kinds lack
_PARSE: Mapping[str, Callable[[Any], Any]] = {
    "log_likelihoods": _floats,
    "log_probs": _floats,
    "large_probs": _tuples,
    "choice_lengths": tuple,
    "rotations": tuple,
    "rotated_log_likelihoods": lambda orders: tuple(map(_floats, orders)),
    "temperatures": TokenTemperatures.from_dict,
}


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a ``samples_*.jsonl`` file; raise ValueError naming file and line where there is none."""
    return (record for record, _ in read_samples(path))


def read_samples(path: str | Path) -> Iterator[tuple[Record, Any]]:
    """Yield the record and the doc (the dataset's row) of each line; raise ValueError as :func:`read_records` does.

    A task with several filters has a line for each; all but one say in words where the doc's record is.
    """
    for number, _, line in read_lines(path):
        if not is_of_other_filter(line):
            yield record_of(line, path, number), line.get("doc")


def is_of_other_filter(line: Mapping[str, Any]) -> bool:
    """Whether a line says in words where the doc's record is: on that of another of the task's filters."""
    found = line.get(RECORD_KEY)
    return isinstance(found, str) and found.startswith(OTHER_FILTER)


def record_of(line: Mapping[str, Any], path: str | Path, number: int) -> Record:
    """Return the record in a line; raise ValueError naming file and line where there is none that can be read."""
    try:
        if not isinstance(line.get(RECORD_KEY), dict):
            raise ValueError(f"no {RECORD_KEY!r} record")
        return Record.from_dict(line[RECORD_KEY])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def read_lines(path: str | Path, start: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the lines of a ``samples_*.jsonl`` file: number (from 1), first byte and content.

    Args:
        path: of the file.
        start: first byte of the line to begin with, which then is number 1.

    Raises:
        ValueError: naming file and line: not JSON, cut short, or no mapping.
    """
    import orjson

    with open(path, "rb") as file:
        file.seek(start)
        for number, text in enumerate(file, start=1):
            try:
                line = _loads(text)
            except (orjson.JSONDecodeError, ValueError) as error:
                is_cut = not text.endswith(b"\n") and text.lstrip()[:1] == b"{"
                what = ", cut short" if is_cut else ""
                raise ValueError(f"{path}, line {number}: not JSON{what} ({error})") from error
            if not isinstance(line, dict):
                raise ValueError(f"{path}, line {number}: no {RECORD_KEY!r} record")
            yield number, start, line
            start += len(text)


def read_columns(*paths: str | Path, n_bins: int = 10) -> Columns:
    """Read ``samples_*.jsonl`` files in one pass that keeps only what the metrics of all their docs need.

    ``read_columns(path, n_bins=n_bins).arrays(kind)`` are the :func:`metric_arrays` of the file's records; a
    million docs take some 60 MB. A group's docs stand in several files, one for each task.

    Args:
        *paths: files; the order is no matter.
        n_bins: bins of the gap sums.

    Raises:
        ValueError: naming file and line where there is no record.
    """
    return Columns.of(chain.from_iterable(map(read_records, paths)), n_bins)


def _loads(text: str | bytes) -> Any:
    """Parse a line; docs may hold the bare NaN that Python writes and strict JSON does not know."""
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def metric_arrays(records: Iterable[Record], kind: str, n_bins: int) -> tuple[Any, Any]:
    """Return the two arguments that metrics of a kind take, from docs whose gold label is sound.

    Args:
        records: of any docs; ordered by task and doc id first, so that seeded resampling gives the same numbers
            whatever order several ranks return them in.
        kind: ``top_label`` (confidence, correct), ``choices`` (probs, labels) or ``full_vocabulary`` (gap_sums,
            n_positions).
        n_bins: bins of the gap sums.
    """
    return Columns.of(records, n_bins).arrays(kind)


def ordered(records: Iterable[Record]) -> list[Record]:
    """Sort by task, then doc id."""
    return sorted(records, key=lambda r: (r.task, -1 if r.doc_id is None else r.doc_id))


def _softmax(log_likelihoods: Sequence[float]) -> NDArray[np.float64]:
    logits = np.asarray(log_likelihoods, dtype=np.float64)
    weights = np.exp(logits - logits.max())
    probs: NDArray[np.float64] = weights / weights.sum()
    return probs


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
