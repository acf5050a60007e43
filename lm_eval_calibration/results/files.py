"""The files of a run: ``results_<time>.json`` and ``samples_<task>_<time>.jsonl``, which share their time."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError

_TIME = re.compile(r"_(\d{4}-\d\d-\d\d(?:T[\d.-]+)?)$")
_HOW = "run the harness with --log_samples --output_path DIR (lm-eval-calibration run does by itself)"


@dataclass(frozen=True)
class Source:
    """What one call of the harness wrote.

    Attributes:
        folder: where its files are.
        time: when it ended, as in the files' names; "" where they have none.
        results_file: its ``results_<time>.json``; None where there is none.
        samples: its samples files.
        is_whole: whether these are all that the call wrote, so that a missing one is an error.
    """

    folder: Path
    time: str
    results_file: Path | None
    samples: tuple[Path, ...]
    is_whole: bool

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """What the harness wrote of the call as a whole; empty where there is no such file.

        Raises:
            UserError: the file can't be read.
        """
        if self.results_file is None:
            return {}
        try:
            data = json.loads(self.results_file.read_text(encoding="utf-8"))  # which knows the bare NaN of the harness
        except (OSError, ValueError) as error:
            raise UserError(f"{self.results_file}: {error}") from error
        if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
            raise UserError(f"{self.results_file}: these are not results of the harness ('results' is missing)")
        return data

    @property
    def model(self) -> str:
        """Name of the model; that of the folder where no results say it."""
        return str(self.results.get("model_name") or self.folder.resolve().name)


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Find the calls of the harness whose files these are.

    Args:
        paths: folders, searched at any depth; results files, each of which brings the samples of its time; or samples
            files.

    Raises:
        UserError: a path does not exist or is no such file; a folder without samples; results without samples.
    """
    found: dict[tuple[Path, str], list[Source]] = {}
    for path in paths:
        for source in _sources_at(path):
            found.setdefault((source.folder.resolve(), source.time), []).append(source)
    return [_together(sources) for sources in found.values()]


def task_of(samples: Path) -> str:
    """Name of the task in the name of a samples file."""
    return _TIME.sub("", samples.stem).removeprefix("samples_")


def _sources_at(path: Path) -> list[Source]:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        return _in_folder(path)
    if path.suffix == ".jsonl":
        time = _time_of(path)
        results = _results_of(path.parent, time) if time else []
        return [Source(path.parent, time, results[0] if len(results) == 1 else None, (path,), is_whole=False)]
    if path.suffix == ".json":
        time = _time_of(path)
        samples = tuple(sorted(path.parent.glob(f"samples_*_{time}.jsonl"))) if time else ()
        if not samples:
            raise UserError(f"{path}: no samples_*_{time or 'TIME'}.jsonl beside it: {_HOW}")
        return [Source(path.parent, time, path, samples, is_whole=True)]
    raise UserError(f"{path} is not the folder of a run, results_*.json or samples_*.jsonl")


def _in_folder(folder: Path) -> list[Source]:
    files: dict[tuple[Path, str], list[Path]] = {}
    for file in sorted(folder.rglob("samples_*.jsonl")):
        files.setdefault((file.parent, _time_of(file)), []).append(file)
    results = {(file.parent, _time_of(file)): file for file in sorted(folder.rglob("*.json")) if _is_results(file)}
    for (parent, time), file in results.items():
        if (parent, time) not in files:
            raise UserError(f"{file}: no samples_*_{time}.jsonl beside it: {_HOW}")
    if not files:
        raise UserError(f"{folder} holds no samples_*.jsonl: {_HOW}")
    return [
        Source(parent, time, results.get((parent, time)), tuple(samples), is_whole=(parent, time) in results)
        for (parent, time), samples in files.items()
    ]


def _together(sources: list[Source]) -> Source:
    """The files of one call that were found by several paths."""
    samples = dict.fromkeys(file for source in sources for file in source.samples)
    whole = next((source for source in sources if source.is_whole), sources[0])
    return Source(whole.folder, whole.time, whole.results_file, tuple(samples), whole.is_whole)


def _time_of(file: Path) -> str:
    found = _TIME.search(file.stem)
    return found.group(1) if found else ""


def _is_results(file: Path) -> bool:
    """Whether a file is called as the harness calls its results (``--output_path x.json`` makes it x_<time>.json)."""
    return bool(_time_of(file)) and not file.name.startswith("samples_")


def _results_of(folder: Path, time: str) -> list[Path]:
    return [file for file in sorted(folder.glob(f"*_{time}.json")) if _is_results(file)]
