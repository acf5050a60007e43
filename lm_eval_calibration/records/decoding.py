"""Lines of multiple-choice docs read by a typed decoder: only what metrics need, in a few microseconds each."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from lm_eval_calibration.records.choices import ChoicesRecord
from lm_eval_calibration.records.record import DEFINITION_VERSION, RECORD_KEY, RECORD_VERSION, json_types, required_keys
from lm_eval_calibration.records.schema import form_of

_OTHERS: dict[str, Any] = {
    "version": Literal[RECORD_VERSION],
    "definitions": Literal[DEFINITION_VERSION],
    "kind": Literal[ChoicesRecord.kind],
    "certificate": msgspec.Raw,
    "generation": None,
    "corpus": None,
}
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
    """Whether parts belong together as :class:`ChoicesRecord` wants; presented in one order only."""
    k = len(doc.log_likelihoods)
    return (
        k > 0
        and (doc.certificate is None or bytes(doc.certificate).startswith(b"{"))
        and (doc.gold is None or 0 <= doc.gold < k)
        and (doc.log_probs is None) == (doc.large_probs is None)
        and (doc.log_probs is None or len(doc.log_probs) == len(doc.large_probs))
        and (doc.choice_lengths is None or (len(doc.choice_lengths) == k and min(doc.choice_lengths) >= 0))
        and doc.rotations is None
        and doc.rotated_log_likelihoods is None
        and doc.temperatures is None
    )
