"""What tells runs apart: the content of their files, when they were made, and names for tables."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from lm_eval_calibration.results.run import Run

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d(?:\.\d+)?)$")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(run: Run) -> list[Path]:
    """The files that a run was read from: results first, then samples."""
    sources = run.configuration.sources
    results = [source.results_file for source in sources if source.results_file is not None]
    return [*results, *(file for source in sources for file in source.samples.values())]


def fingerprint(run: Run) -> str:
    """SHA-256 over those of the run's samples files, wherever they lie and whatever they are called."""
    digests = sorted(sha256(file) for source in run.configuration.sources for file in source.samples.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def are_same_files(one: Run, other: Run) -> bool:
    """Whether two runs were read from the same files, by whatever names."""
    return {path.resolve() for path in files_of(one)} == {path.resolve() for path in files_of(other)}


def unchanged(one: str, other: str) -> str:
    """Return what is said of two runs whose samples are equal, as those of a deterministic model are."""
    return f"nothing changed, bit for bit: the samples of {one} and {other} are equal"


def date_of(run: Run) -> str:
    """When the run ended, as ISO 8601; when its first file was written, where no file's name says it."""
    dates = run.configuration.dates
    if dates and (found := _TIME.match(dates[-1])):
        day, hour, minute, second = found.groups()
        return datetime.fromisoformat(f"{day}T{hour}:{minute}:{second[:9]}").isoformat(timespec="seconds")
    return datetime.fromtimestamp(files_of(run)[0].stat().st_mtime).isoformat(timespec="seconds")


class Identity(NamedTuple):
    """What a run may be told by, in words: its model's name, its shots, its template, its day."""

    model: str
    shots: str
    template: str
    day: str


def identity_of(run: Run) -> Identity:
    """Return what a run may be told by."""
    model = " ".join(re.sub(r".*__|.*[/\\]", "", run.model.rstrip("/\\")).split()) or "model"
    shots = sorted({run.configuration.num_fewshot.get(task, 0) for task in run.tasks})
    template = "chat template" if run.configuration.chat_template else "no chat template"
    return Identity(model, f"{'/'.join(map(str, shots))}-shot", template, date_of(run)[:10])


def labels(runs: Sequence[Run]) -> list[str]:
    """Names of runs for a table: the model's, and what else tells them apart, if need be a number."""
    return labels_of([identity_of(run) for run in runs])


def labels_of(identities: Sequence[Identity]) -> list[str]:
    """Return the :func:`labels` of runs that are told by these."""
    plain = [identity.model for identity in identities]
    details: list[list[str]] = [[] for _ in identities]
    names = plain
    for column in list(zip(*identities, strict=True))[1:]:
        if len(set(names)) < len(names) and len(set(column)) > 1:
            for of_run, detail in zip(details, column, strict=True):
                of_run.append(detail)
            names = [f"{name} ({', '.join(of_run)})" for name, of_run in zip(plain, details, strict=True)]
    total, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = f"{name} #{seen[name]}" if total[name] > 1 else name
    return names
