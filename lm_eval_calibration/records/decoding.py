"""Lines of multiple-choice docs read by a typed decoder: only what metrics need, in a few microseconds each.

The harness writes a sample's metrics last, so that the record ends its line: where it does, what comes before, the
prompts and the doc, is not parsed.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.record import DEFINITION_VERSION, RECORD_KEY, RECORD_VERSION, json_types, required_keys
from lm_eval_calibration.records.schema import LogProb, form_of

_Index = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_OTHERS: dict[str, Any] = {
    "version": Literal[RECORD_VERSION],
    "definitions": Literal[DEFINITION_VERSION],
    "kind": Literal[ChoicesRecord.kind],
    "certificate": msgspec.Raw,
    "log_likelihoods": Annotated[list[LogProb], msgspec.Meta(min_length=1)],
    "gold": _Index | None,
    "choice_lengths": list[_Index] | None,
    **dict.fromkeys(("rotations", "rotated_log_likelihoods", "temperatures", "generation", "corpus")),
}
"""Where less will do than a record's type allows: choices in one order, and no parts that don't belong together."""

_NEEDED = frozenset({*required_keys(ChoicesRecord), "version", "definitions", "kind"})
_RECORD = form_of("Choices", json_types(ChoicesRecord) | _OTHERS, _NEEDED)
_WHOLE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    form_of("Line", {RECORD_KEY: _RECORD}, frozenset({RECORD_KEY}))
)
_ENDS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[_RECORD])  # type: ignore[valid-type]
_KEY = b'"%b": ' % RECORD_KEY.encode()
_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def decode(lines: Sequence[bytes]) -> list[Any] | None:
    """Return these lines' records, their fields as attributes; None where some line is not a plain multiple choice.

    The caller then reads the lines one by one, which says what is wrong, if anything is.
    """
    docs = _from_ends(lines) or _from_whole(lines)
    return docs if docs is not None and all(map(_is_plain, docs)) else None


def _from_ends(lines: Sequence[bytes]) -> list[Any] | None:
    """The records with which the lines end; None where some line ends otherwise.

    A line begins with the id of its doc, which tells it from two that ran together.
    """
    ends = [line[line.rfind(_KEY) + len(_KEY) : -2] for line in lines]
    try:
        docs = _ENDS.decode(b"[%b]" % b",".join(ends))
    except _ERRORS:
        return None
    if len(docs) != len(lines) or any(doc.doc_id is None for doc in docs):
        return None
    is_whole = all(
        line.startswith(b'{"doc_id": %d, ' % doc.doc_id) and line.endswith(b"}}\n")
        for line, doc in zip(lines, docs, strict=True)
    )
    return docs if is_whole else None


def _from_whole(lines: Sequence[bytes]) -> list[Any] | None:
    try:
        return [_WHOLE.decode(line).calibration for line in lines]
    except _ERRORS:
        return None


def _is_plain(doc: Any) -> bool:
    """Whether parts belong together as :class:`ChoicesRecord` wants."""
    k = len(doc.log_likelihoods)
    return (
        (doc.gold is None or doc.gold < k)
        and (doc.certificate is None or bytes(doc.certificate).startswith(b"{"))
        and (doc.log_probs is None) == (doc.large_probs is None)
        and (doc.log_probs is None or len(doc.log_probs) == len(doc.large_probs))
        and (doc.choice_lengths is None or len(doc.choice_lengths) == k)
    )
