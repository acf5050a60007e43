"""What the harness, in its versions and on several systems, calls its files."""

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

_TIME = re.compile(r"_(\d{4}-\d\d-\d\d(?:[T ][\d.:-]+.*)?)$")
"""With what systems write behind it in the names of copies: "... (1)"."""

PARQUET = ".parquet"
_COMPRESSED = (".gz", ".zst")
_NOT_IN_NAMES = re.compile(r"[\"<>:/|\\?*\[\]=]+")


class Name(NamedTuple):
    """The parts of a file's name.

    Attributes:
        stem: without time and suffixes.
        time: as the harness writes it; "" where there is none.
        suffix: less that of a compression.
    """

    stem: str
    time: str
    suffix: str

    @property
    def is_samples(self) -> bool:
        """Whether a file is called as the harness calls its samples."""
        return self.stem.startswith("samples_") and self.suffix in (".jsonl", ".json", PARQUET)

    @property
    def is_results(self) -> bool:
        """Whether a file is called as the harness calls its results."""
        return self.stem.startswith("results") and self.suffix == ".json"

    @property
    def task(self) -> str:
        """Name of the task in the name of a samples file."""
        return self.stem.removeprefix("samples_")


def parse(path: Path) -> Name:
    """Take a file's name apart; one from Windows may hold its folders, and one from the web percent escapes."""
    name = re.split(r"[\\/]", unquote(path.name))[-1]
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix.isdecimal():  # a time ends in a fraction of a second
        stem, suffix = name, ""
    found = _TIME.search(stem)
    time = found[1].replace(":", "-") if found else ""
    return Name(_TIME.sub("", stem), time, f".{suffix}" if suffix else "")


def in_name(text: str) -> str:
    """Return a model's name or arguments as names of files and folders have them."""
    return _NOT_IN_NAMES.sub("__", text)


def pretrained(model_args: Any) -> str:
    """Return the model that arguments of the harness name, a text or a mapping; "" where they name none."""
    if isinstance(model_args, str):
        model_args = dict(part.partition("=")[::2] for part in model_args.split(","))
    if not isinstance(model_args, dict):
        return ""
    return next((str(model_args[key]) for key in ("pretrained", "model", "engine", "path") if model_args.get(key)), "")
