"""The files of runs: ``results_<time>.json`` and ``samples_<task>_<time>.jsonl``, which share their time.

Harness 0.4.0 to 0.4.2 wrote ``results.json`` and ``<model_args>_<task>.jsonl``, which holds an array.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.jsonl import decompressed_head
from lm_eval_calibration.results import names
from lm_eval_calibration.results.forms.form import Form
from lm_eval_calibration.results.forms.registry import SUFFIXES, NoDocsError, form_of, what_is_read
from lm_eval_calibration.results.forms.table import Table
from lm_eval_calibration.results.summary import BEGINS, read_summary

_HOW = "run the harness with --log_samples --output_path DIR (lm-eval-calibration run does by itself)"


@dataclass(frozen=True)
class Source:
    """What one call of the harness wrote.

    Attributes:
        folder: where its files are.
        time: when it ended, as in the files' names; "" where they have none.
        results_file: its ``results_<time>.json``; None where there is none.
        samples: its samples files, by task.
        is_whole: whether these are all that the call wrote, so that a missing one is an error.
        named: the model as the files' names have it; "" where they don't.
        is_part: whether only some of its tasks are wanted.
        form: what its samples are in; None where they are the harness's.
    """

    folder: Path
    time: str
    results_file: Path | None
    samples: Mapping[str, Path]
    is_whole: bool
    named: str = ""
    is_part: bool = False
    form: Form | None = None

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """What the harness wrote of the call as a whole; empty where there is no such file.

        Raises:
            UserError: the file can't be read.
        """
        return {} if self.results_file is None else read_summary(self.results_file)

    @property
    def model(self) -> str:
        """Name of the model; that of the folder where no results say it."""
        said = self.results.get("model_name") or names.pretrained((self.results.get("config") or {}).get("model_args"))
        return str(said or self.named or self.folder.resolve().name)


class Found(NamedTuple):
    """What was found in some places.

    Attributes:
        sources: calls of the harness.
        broken: files that are left out, each with the reason.
    """

    sources: list[Source]
    broken: dict[Path, str]


def find_sources(paths: Sequence[Path], columns: str | None = None) -> Found:
    """Find the calls of the harness whose files these are.

    Args:
        paths: folders, searched at any depth; results files, each of which brings the samples of its time; or samples
            files.
        columns: which columns of tables are what; the paths are tables then.

    Raises:
        UserError: a path does not exist or is no such file; a folder without samples; results without samples.
    """
    found: dict[tuple[Path, str, str], Source] = {}
    broken: dict[Path, str] = {}
    if columns is not None:
        table = Table(columns)
        return Found([_of_form(path, table) for path in paths], broken)
    for path in paths:
        for source in _sources_at(path, broken):
            key = source.folder.resolve(), source.time, source.named
            found[key] = _together(found[key], source) if key in found else source
    return Found(list(found.values()), broken)


def _of_form(path: Path, form: Form) -> Source:
    """What somebody else's file holds; raise UserError naming the file."""
    _check_regular(path)
    try:
        model, tasks, time = form.about(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not tasks:
        raise UserError(f"{path}: no docs")
    return Source(path.parent, time, None, dict.fromkeys(tasks, path), is_whole=False, named=model, form=form)


def _together(one: Source, other: Source) -> Source:
    """The files of one call that were found by several paths."""
    whole = other if other.is_whole else one
    return replace(whole, samples={**one.samples, **other.samples})


def _sources_at(path: Path, broken: dict[Path, str]) -> list[Source]:
    if not os.path.lexists(path):
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        sources = _in_folder(list(_walk(path)), broken)
        if not sources:
            reasons = "; ".join(list(broken.values())[:3])
            raise UserError(reasons or f"{path} holds no samples_*.jsonl: {_HOW}; {what_is_read()}")
        return sources
    _check_regular(path)
    if form := form_of(path, decompressed_head(path)):
        return [_of_form(path, form)]
    if names.parse(path).suffix not in (".json", ".jsonl", names.PARQUET):
        raise UserError(f"{path} is not the folder of a run, results_*.json or samples_*.jsonl; {what_is_read()}")
    return [_beside(path)]


def _beside(path: Path) -> Source:
    """The call that a results file or a samples file is of."""
    broken: dict[Path, str] = {}
    name = names.parse(path)
    for source in _in_folder(sorted(path.parent.iterdir()), broken):
        if source.results_file == path:
            return source
        if mine := {task: file for task, file in source.samples.items() if file == path}:
            return replace(source, samples=mine, is_whole=False)
    if path in broken:
        raise UserError(broken[path])
    if name.suffix == ".json" and not name.is_samples and (reason := _unreadable(path)):
        raise UserError(reason if name.is_results else f"{reason}; {what_is_read()}")
    return Source(path.parent, name.time, None, {name.task: path}, is_whole=False)


def _in_folder(files: Sequence[Path], broken: dict[Path, str]) -> list[Source]:
    """Sort files into calls: results and samples of one folder and time belong together."""
    samples: dict[tuple[Path, str, str], dict[str, Path]] = defaultdict(dict)
    results: dict[tuple[Path, str, str], Path] = {}
    arrays: list[Path] = []
    others: dict[tuple[Path, str, str], Source] = {}
    without_docs = {}
    for file in files:
        name = names.parse(file)
        head = _head(file) if name.suffix in SUFFIXES else b""
        try:
            if not head and (name.is_samples or name.is_results or name.suffix == ".jsonl"):
                _check_regular(file)  # says why there is nothing
            if form := form_of(file, head):
                source = _of_form(file, form)
                known = others.get((source.folder, source.time, source.named), source)
                is_again = known is not source and bool(known.samples.keys() & source.samples.keys())
                key = file if is_again else source.folder, source.time, source.named
                others[key] = source if is_again else _together(known, source)
            elif name.is_samples:
                samples[file.parent, name.time, ""].setdefault(name.task, file)
            elif name.suffix == ".json" and (name.is_results or BEGINS.match(head)):
                results.setdefault((file.parent, name.time, "" if name.time else file.name), file)
            elif name.suffix == ".jsonl" and head.lstrip().startswith(b"[") and b'"doc_id"' in head:
                arrays.append(file)
        except NoDocsError as error:
            without_docs[file] = str(error)
        except (UserError, ValueError, OSError) as error:
            broken[file] = _naming(file, error)
    broken |= {} if others else without_docs
    for file in arrays:
        task, model = _of_array(file, [found for key, found in results.items() if key[:2] == (file.parent, "")])
        samples[file.parent, "", model][task] = file
    return [*_paired(samples, results, broken), *others.values()]


def _paired(
    samples: Mapping[tuple[Path, str, str], dict[str, Path]],
    results: dict[tuple[Path, str, str], Path],
    broken: dict[Path, str],
) -> Iterator[Source]:
    """Give each call's samples their results: of its time, of its model, or the only ones where either has no time."""
    rest = dict(results)
    pairs = {key: rest.pop(key) for key in samples if key[1] and key in rest}
    for key in samples.keys() - pairs.keys():
        parent, time, model = key
        others = [other for other in samples.keys() - pairs.keys() if other[0] == parent]
        near = [one for one in rest if one[0] == parent and not (time and one[1])]
        alike = [one for one in near if one[1] == time]
        mine = [one for one in near if _ran(rest[one], model)] if model else alike or (near if len(others) == 1 else [])
        if len(mine) == 1:
            pairs[key] = rest.pop(mine[0])
    for (parent, time, model), of_tasks in samples.items():
        file = pairs.get((parent, time, model))
        if file is not None and (reason := _unreadable(file)):
            broken[file], file = reason, None
        yield Source(parent, time, file, of_tasks, is_whole=file is not None, named=model)
    for (_, time, _), file in rest.items():
        broken[file] = _unreadable(file) or f"{file}: no samples_*_{time or 'TIME'}.jsonl beside it: {_HOW}"


def _unreadable(results_file: Path) -> str:
    try:
        read_summary(results_file)
    except UserError as error:
        return str(error)
    return ""


def _ran(results_file: Path, model: str) -> bool:
    """Whether old results are those of a model as files' names have its arguments."""
    arguments = not _unreadable(results_file) and (read_summary(results_file).get("config") or {}).get("model_args")
    return isinstance(arguments, str) and _loosely(arguments) == _loosely(model)


def _loosely(model: str) -> str:
    """A model's arguments as files' names of any version have them: 0.4.2 wrote "=/" as four underscores."""
    return re.sub("_+", "_", names.in_name(model))


def _of_array(file: Path, results_files: Sequence[Path]) -> tuple[str, str]:
    """Task and model in the name ``<model_args>_<task>.jsonl``."""
    stem = names.parse(file).stem
    readable = [read_summary(path) for path in results_files if not _unreadable(path)]
    known = {task for one in readable for task in (*one["results"], *(one.get("configs") or ()))}
    task = max((task for task in known if stem.endswith(f"_{task}")), key=len, default="")
    if not task:
        task = stem.rpartition("__")[2].partition("_")[2] or stem
    return task, stem.removesuffix(task).removesuffix("_")


def _check_regular(path: Path) -> None:
    try:
        decompressed_head(path)
    except (OSError, ValueError) as error:
        raise UserError(_naming(path, error)) from error


def _head(file: Path) -> bytes:
    """Its first bytes; nothing of one that can't be read."""
    try:
        return decompressed_head(file, 4096)
    except (OSError, ValueError):
        return b""


def _naming(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    return str(error)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order, but those of hidden folders; links are followed, in circles once."""
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        resolved = here.resolve()
        if resolved in seen:
            folders.clear()
            continue
        seen.add(resolved)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(files))
