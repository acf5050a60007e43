"""How a number was obtained: the backend, its tokenizer, the versions of the packages that it depends on."""

import hashlib
import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Any

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level


def certificate(lm: Any, *packages: str, tokenizer: bool = True, **fields: Any) -> dict[str, Any]:
    """Return how a backend's answers are obtained.

    Args:
        lm: the backend.
        packages: those that its numbers depend on, beside ours and the harness.
        tokenizer: whether it depends on a tokenizer that is known here.
        fields: what else there is to say, in this order.
    """
    of_tokenizer = tokenizer_fields(lm) if tokenizer else {}
    return {"backend": type(lm).__name__, **fields, **of_tokenizer, "versions": versions("lm-eval", *packages)}


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of this package and of each named one."""
    return {package: _version(package) for package in ("lm-eval-calibration", *packages)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def tokenizer_fields(lm: Any) -> dict[str, str]:
    """Return what a certificate says of a backend's tokenizer: ``tokenizer`` and, where it is known, ``vocabulary``.

    The vocabulary is the first 16 hexadecimal digits of the SHA-256 of its tokens with their ids, special ones
    included, so that copies in other folders share it. A chat server doesn't say which tokenizer it uses.
    """
    tokenizer = getattr(lm, "tokenizer", None)
    name = str(getattr(lm, "tokenizer_name", "")) or str(getattr(tokenizer, "name_or_path", ""))
    fields = {"tokenizer": name or "unknown"}
    if hasattr(tokenizer, "get_vocab"):
        fields["vocabulary"] = fingerprint(tokenizer)
    return fields


def fingerprint(tokenizer: Any) -> str:
    """Return the hash of the vocabulary of a tokenizer that has ``get_vocab``."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
    text = "\n".join(f"{number} {token!r}" for token, number in entries)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
