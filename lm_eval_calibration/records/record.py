"""What the records of all kinds have, and their JSON form.

A record is everything that metrics, reports and recalibration need of one doc. It is the field ``calibration`` of a
line of ``samples_*.jsonl``, and one of the kinds :class:`~lm_eval_calibration.records.ChoicesRecord`,
:class:`~lm_eval_calibration.records.GenerationRecord` and :class:`~lm_eval_calibration.records.CorpusRecord`.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from lm_eval_calibration.records.numbers import log_from_json, log_to_json
from lm_eval_calibration.records.schema import check, form_of, json_type
from lm_eval_calibration.records.stated import StatedConfidence

RECORD_VERSION = 1
"""Version of the record's form."""

DEFINITION_VERSION = 1
"""Version of the metrics' definitions; a change of any formula, binning or default changes it."""

RECORD_KEY = "calibration"
"""The field of a samples line that holds the record."""

OTHER_FILTER = "see the line of filter "
"""Begins the text in that field in lines of a task's other filters: a doc has one record."""

KEPT_PROB = 0.05
"""Probabilities at least this large are stored, so Full-ECE can be computed later for any n_bins up to 20."""

OWN_KEYS = ("p_true", "verbalized")
"""Sources of stated confidences that have a key of their own in JSON; those of all others are in ``stated``."""

_KEYS = (
    *("version", "definitions", "task", "doc_id", "doc_hash", "prompt_hash", "cluster", "kind", "log_likelihoods"),
    "gold",
    *("log_probs", "large_probs", "kept_from", "vocab_size", "certificate", "choice_lengths", "rotations"),
    *("rotated_log_likelihoods", "temperatures", *OWN_KEYS, "stated", "generation", "options", "budgets", "corpus"),
    *("confidence", "correct"),
)
"""Of the JSON form, in the order in which they are written."""

_NULLABLE = {"gold", "confidence", "correct"}
"""Keys that are written even where they are null."""

_NOT_FIELDS = ("version", "definitions", "kind", "confidence", "correct", *OWN_KEYS)


def json_field(read: Callable[[Any], Any], write: Callable[[Any], Any], **options: Any) -> Any:
    """Return a dataclass field with another form in JSON.

    Args:
        read: makes the value of its JSON form.
        write: makes the JSON form of the value.
        **options: of :func:`dataclasses.field`.
    """
    return field(metadata={"read": read, "write": write}, **options)


class ScoredAnswer(NamedTuple):
    """An answer reduced to what top-label metrics take.

    Attributes:
        task: name of the task.
        doc_id: the doc's number in its split.
        confidence: of the answer, 0 to 1; None where it is undefined.
        correct: 1 if the answer is right, else 0; None where nobody can tell.
        cluster: id of what the doc was drawn with; None where that is unknown.
    """

    task: str
    doc_id: int | None
    confidence: float | None
    correct: int | None
    cluster: str | None = None

    @property
    def kind(self) -> str:
        """What tells it from a record."""
        return "answer"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the records of all kinds have.

    Attributes:
        task: name of the task.
        doc_id: the doc's number in its split.
        doc_hash: the harness's hash of the doc.
        prompt_hash: the harness's hash of the (first) prompt.
        cluster: id of what the doc was drawn with (passage, program, patient); None where that is unknown.
        vocab_size: entries of each token distribution.
        certificate: how the numbers were obtained.
        extra: optional fields that this version does not know.
    """

    kind: ClassVar[str]

    task: str
    doc_id: int | None
    doc_hash: str
    prompt_hash: str
    cluster: str | None = None
    vocab_size: int | None = None
    certificate: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    def __post_init__(self) -> None:
        """Refuse what no metric could be computed from."""

    @property
    def confidence(self) -> float | None:
        """Confidence of the doc's answer, 0 to 1; None where it is undefined, and for a text of a corpus."""
        return None

    @property
    def correct(self) -> int | None:
        """1 if the answer is right, else 0; None where nobody can tell, and for a text of a corpus."""
        return None

    @property
    def label(self) -> str:
        """Task and doc, as messages name them."""
        return f"{self.task} doc {self.doc_id}"

    def scored(self, confidence: float | None, correct: int | None) -> ScoredAnswer:
        """Return the doc with one of its confidences."""
        return ScoredAnswer(self.task, self.doc_id, confidence, correct, self.cluster)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready data; an infinite log-likelihood becomes null."""
        data = {"version": RECORD_VERSION, "definitions": DEFINITION_VERSION, "kind": self.kind}
        data |= self._to_json() | {"confidence": self.confidence, "correct": self.correct}
        written = {key: data.pop(key) for key in _KEYS if key in data} | data
        kept = {key: value for key, value in written.items() if value is not None or key in _NULLABLE}
        return kept | dict(self.extra)

    def _to_json(self) -> dict[str, Any]:
        form = _form(type(self))
        data = {name: getattr(self, name) for name in form.names}
        data["certificate"] = dict(self.certificate)  # a backend's may be a read-only view, which JSON can't hold
        return data | {name: write(data[name]) for name, write in form.write.items() if data[name] is not None}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Record":
        """Read a record of any kind; unknown fields are kept.

        Raises:
            ValueError: an unknown version or kind, a field that is missing or of another kind, or an impossible value.
        """
        if data.get("version") != RECORD_VERSION:
            raise ValueError(f"record version {data.get('version')!r} is not {RECORD_VERSION}")
        if data.get("definitions") != DEFINITION_VERSION:
            raise ValueError(f"definition version {data.get('definitions')!r} is not {DEFINITION_VERSION}")
        kind = data.get("kind", "")
        cls = _KINDS.get(kind, Record) if isinstance(kind, str) else Record
        form = _form(cls)
        if None in map(data.get, form.required) or not form.nullable <= data.keys():
            missing = [name for name in form.required if data.get(name) is None]
            missing = sorted({*missing, *(form.nullable - data.keys())})
            raise ValueError(f"record of {data.get('task')} doc {data.get('doc_id')}: no {', '.join(missing)}")
        if cls is Record:
            raise ValueError(f"kind is {data['kind']!r}; there is {', '.join(_KINDS)}")
        check(data, form.schema)
        values = {**form.defaults, **data}
        for name in _NOT_FIELDS:
            values.pop(name, None)
        extra = {}
        if values.keys() != form.names:
            extra = _unknown({name: values.pop(name) for name in values.keys() - form.names}, cls.kind)
            extra = {name: extra[name] for name in data if name in extra}  # in the order in which they came
        record = cls.__new__(cls)  # the generated __init__ of a frozen class takes twice as long
        cls._read_fields(values, data)
        record.__dict__.update(values, extra=extra)
        record.__post_init__()
        return record

    @classmethod
    def _read_fields(cls, values: dict[str, Any], data: Mapping[str, Any]) -> None:
        """Set those values that have another form in JSON."""
        for name, read in _form(cls).read:
            if values[name] is not None:
                values[name] = read(values[name])


@dataclass(frozen=True, kw_only=True)
class AnswerRecord(Record):
    """A doc that has an answer, chosen or generated.

    Attributes:
        log_probs: of the reference's tokens (the gold choice, or a generation's reference answer); None where there is
            no reference or the backend gives no token distributions.
        large_probs: at each of these positions, every probability of at least ``kept_from``.
        kept_from: 0.05, or 1/n_bins of the run if that is less.
        stated: the confidences that the model stated, by their source, such as ``p_true`` or ``verbalized``.
    """

    log_probs: tuple[float, ...] | None = json_field(log_from_json, log_to_json, default=None)
    large_probs: tuple[tuple[float, ...], ...] | None = json_field(
        lambda positions: tuple(map(tuple, positions)), lambda positions: list(map(list, positions)), default=None
    )
    kept_from: float | None = None
    stated: Mapping[str, StatedConfidence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parts that don't belong together."""
        if (self.log_probs is None) != (self.large_probs is None) or len(self.log_probs or ()) != len(
            self.large_probs or ()
        ):
            raise ValueError("log_probs and large_probs are not of the same positions")

    def with_stated_confidence(self, source: str) -> ScoredAnswer:
        """Return the answer with the confidence that the model stated; ValueError where this source has none."""
        if source not in self.stated:
            raise ValueError(f"{self.label}: the model was not asked for {source}")
        return self.scored(self.stated[source].confidence, self.correct)

    def _to_json(self) -> dict[str, Any]:
        stated = {source: confidence.to_dict() for source, confidence in self.stated.items()}
        own = {source: stated.pop(source) for source in OWN_KEYS if source in stated}
        return super()._to_json() | own | {"stated": stated or None}

    @classmethod
    def _read_fields(cls, values: dict[str, Any], data: Mapping[str, Any]) -> None:
        super()._read_fields(values, data)
        stated = {source: data[source] for source in OWN_KEYS if data.get(source) is not None}
        stated |= data.get("stated") or {}
        values["stated"] = {source: StatedConfidence.from_dict(confidence) for source, confidence in stated.items()}


_KINDS: dict[str, type[Record]] = {}
"""The kinds of records by their names; every class that names its kind is one."""


class _Form(NamedTuple):
    """The fields of a kind of record.

    Attributes:
        names: of all fields but ``extra``.
        required: those that JSON must hold, and the kind.
        nullable: those that JSON must hold, if only as null.
        defaults: of the others.
        read: name and what makes the value of its JSON form, where the two differ.
        write: name to what makes the JSON form.
        schema: types of the JSON form.
    """

    names: Set[str]
    required: Set[str]
    nullable: Set[str]
    defaults: dict[str, Any]
    read: list[tuple[str, Callable[[Any], Any]]]
    write: dict[str, Callable[[Any], Any]]
    schema: Any


_FORMS: dict[type[Record], _Form] = {}


def _form(cls: type[Record]) -> _Form:
    """The fields of a kind, looked up once."""
    if cls not in _FORMS:
        _FORMS[cls] = _form_of(cls)
    return _FORMS[cls]


def _form_of(cls: type[Record]) -> _Form:
    names = {f.name: f for f in fields(cls) if f.name != "extra"}
    defaults: dict[str, Any] = {"doc_id": None}
    for name, f in names.items():
        if f.default_factory is not MISSING:
            defaults[name] = f.default_factory()
        elif f.default is not MISSING:
            defaults[name] = f.default
    special = {name: f.metadata for name, f in names.items() if f.metadata}
    return _Form(
        names=names.keys(),
        required={*names, "kind"} - defaults.keys() - _NULLABLE,
        nullable=(names.keys() & _NULLABLE) - defaults.keys(),
        defaults=defaults,
        read=[(name, form["read"]) for name, form in special.items()],
        write={name: form["write"] for name, form in special.items()},
        schema=form_of(cls.__name__, json_types(cls)),
    )


def json_types(cls: type[Record]) -> dict[str, Any]:
    """Return the keys of a kind's JSON form, with their types."""
    return {f.name: json_type(f.type, f.name) for f in fields(cls) if f.name != "extra"} | _BESIDE


def required_keys(cls: type[Record]) -> frozenset[str]:
    """Return the keys that the JSON form of a kind must hold."""
    return frozenset(_form(cls).required | _form(cls).nullable)


_BESIDE = {"confidence": float | None, "correct": int | None}
_BESIDE |= dict.fromkeys(OWN_KEYS, json_type(StatedConfidence | None))
"""Types of keys that are no fields."""


def _unknown(others: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Fields that a kind does not have, less empty ones of other kinds; ValueError where they make it another kind."""
    for other in _KINDS.values():
        for name in (_form(other).required | _form(other).nullable) - _form(Record).required:
            if others.get(name) not in (None, [], ()):
                raise ValueError(f"a record of kind {kind} has {name}, as if it were of kind {other.kind}")
    known = {name for other in _KINDS.values() for name in _form(other).names}
    return {name: value for name, value in others.items() if value is not None or name not in known}
