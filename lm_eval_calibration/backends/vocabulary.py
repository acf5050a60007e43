"""Which tokenizer cut the texts: its name, and a fingerprint of its vocabulary, which copies in other folders share."""

import hashlib
from typing import Any
from weakref import WeakKeyDictionary

_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def tokenizer_fields(lm: Any) -> dict[str, str]:
    """Return what a certificate says of a backend's tokenizer: ``tokenizer`` and, where it is known, ``vocabulary``.

    The vocabulary is the first 16 hexadecimal digits of the SHA-256 of its tokens with their ids, special ones
    included. A chat server doesn't say which tokenizer it uses.
    """
    tokenizer = getattr(lm, "tokenizer", None)
    name = str(getattr(lm, "tokenizer_name", "")) or str(getattr(tokenizer, "name_or_path", ""))
    fields = {"tokenizer": name or "unknown"}
    if hasattr(tokenizer, "get_vocab"):
        fields["vocabulary"] = fingerprint(tokenizer)
    return fields


def fingerprint(tokenizer: Any) -> str:
    """Return it for a tokenizer with ``get_vocab``; computed once."""
    if tokenizer not in _known:
        entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
        text = "\n".join(f"{number} {token!r}" for token, number in entries)
        _known[tokenizer] = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return _known[tokenizer]
