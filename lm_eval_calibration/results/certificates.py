"""What the certificates of two runs say that is not the same: numbers may differ for that alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lm_eval_calibration.records import Record
from lm_eval_calibration.results.shown import model_name

Certificate = Mapping[str, Any]

_FIELDS = {
    "shared_prefixes": "shared beginnings of prompts computed once",
    "distributions": "probabilities of the vocabulary",
    "max_length": "longest input",
    "k": "entries of the vocabulary that the server returns",
}
"""What people read instead of a field's name."""

_VALUES = {"True": "yes", "False": "no", "": "not recorded", "top_k": "the most probable only"}

_WITHOUT_NAMES = "vocabulary"
"""A field whose values are fingerprints."""


class CertificateDifference(NamedTuple):
    """A field of the certificates in which two runs differ.

    Attributes:
        field: its name, such as "backend", "dtype", "distributions" or "versions.torch".
        a: its values in one run, in order; "" where the field is missing.
        b: its values in the other.
    """

    field: str
    a: tuple[str, ...]
    b: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in words."""
        *parents, name = self.field.split(".")
        if name == _WITHOUT_NAMES:
            return "vocabulary of the tokenizer: not the same"
        what = f"version of {name}" if parents == ["versions"] else ".".join([*parents, _FIELDS.get(name, name)])
        return f"{what}: {_in_words(self.a)} against {_in_words(self.b)}"


def certificate_differences(a: Iterable[Certificate], b: Iterable[Certificate]) -> tuple[CertificateDifference, ...]:
    """Fields of two runs' certificates (how the numbers were obtained) whose values are not the same in both.

    Names of tokenizers count only where vocabularies are unknown or not the same.
    """
    one, other = _values(a), _values(b)
    for field in [field for field in one if field.endswith("vocabulary") and one[field] == other.get(field)]:
        name = field.removesuffix("vocabulary") + "tokenizer"
        one.pop(name, None)
        other.pop(name, None)
    missing = ("",)
    found = [
        CertificateDifference(field, one.get(field, missing), other.get(field, missing)) for field in {**one, **other}
    ]
    return tuple(difference for difference in found if difference.a != difference.b)


def tokenizer_name(records: Iterable[Record]) -> str:
    """Return the name of the tokenizer for people, with its number of entries."""
    first = next(iter(records))
    size = "" if first.vocab_size is None else f" ({first.vocab_size:,} entries)"
    return model_name(str(first.certificate.get("tokenizer") or "an unknown one")) + size


def tokenizer(records: Iterable[Record]) -> str | None:
    """What positions and vocabulary were cut by, as a name: equal names, equal cuts. None where it isn't recorded.

    The vocabulary's fingerprint where the certificate has one, else the tokenizer's name; and the number of entries.
    """
    names = {
        (record.certificate.get("vocabulary") or record.certificate.get("tokenizer"), record.vocab_size)
        for record in records
    }
    if len(names) != 1:
        return None
    name, size = names.pop()
    return None if name is None or size is None else f"{name} ({size} entries)"


def _values(certificates: Iterable[Certificate]) -> dict[str, tuple[str, ...]]:
    """Values of each field, "" where a certificate lacks it."""
    # Certificates are few and shared by many records: each is looked at once.
    flat = [dict(_flat(one)) for one in {repr(one): one for one in certificates}.values()]
    fields = dict.fromkeys(field for fields in flat for field in fields)
    return {field: tuple(sorted({fields.get(field, "") for fields in flat})) for field in fields}


def _flat(certificate: Certificate, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in certificate.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _in_words(values: tuple[str, ...]) -> str:
    """Values as people read them; of several, each is that of some docs."""
    words = [_VALUES.get(value, model_name(value)) for value in values]
    return words[0] if len(words) == 1 else f"{' and '.join(words)} (some docs each)"
