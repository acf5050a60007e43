"""Lines of multiple-choice docs read by a typed decoder: only what metrics need, in a few microseconds each."""

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
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    form_of("Line", {RECORD_KEY: _RECORD}, frozenset({RECORD_KEY}))
)


def decode(lines: Sequence[bytes]) -> list[Any] | None:
    """Return these lines' records, their fields as attributes; None where some line is not a plain multiple choice.

    The caller then reads the lines one by one, which says what is wrong, if anything is.
    """
    try:
        docs = [_DECODER.decode(line).calibration for line in lines]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return docs if all(map(_is_plain, docs)) else None


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
