"""Which of several runs is meant."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import some
from lm_eval_calibration.results.files import Source
from lm_eval_calibration.results.summary import within

LATEST = 2**36
"""Seconds since 1970 beyond which a number is no date: the year 4147."""

SHOWN = 10
"""Models or dates that an error lists."""


@dataclass(frozen=True)
class Selection:
    """What was wanted of the runs that are there.

    Attributes:
        latest: only the run that ended last.
        model: pattern of the model's name: a glob, or a part of it; None for any.
        task: the same of tasks and groups.
        columns: which columns of a table are what; None where no tables are read.
    """

    latest: bool = False
    model: str | None = None
    task: str | None = None
    columns: str | None = None

    def of(self, sources: Sequence[Source]) -> list[Source]:
        """Return what is meant of some calls of the harness; raise UserError where that is nothing."""
        found = list(sources)
        if self.model is not None:
            models = matching(self.model, [source.model for source in found], "--model", "models")
            found = [source for source in found if source.model in models]
        if self.task is not None:
            groups = {name for source in found for name in source.results.get("group_subtasks") or {}}
            tasks = {task for source in found for task in source.samples}
            wanted = matching(self.task, sorted(tasks | groups), "--task", "tasks")
            found = [narrow for source in found if (narrow := _with_tasks(source, wanted)).samples]
            if not found:
                raise UserError(f"--task {self.task}: no samples of it are here")
        return [max(found, key=when)] if self.latest else found


ALL = Selection()


def when(source: Source) -> tuple[str, float]:
    """When a call ended, to sort by: as the files' names say it, or by its results, or by the files' age."""
    date = source.results.get("date")
    if not isinstance(date, int | float) or not 0 < date < LATEST:
        files = [source.results_file] if source.results_file else list(source.samples.values())
        date = max((file.stat().st_mtime for file in files), default=0.0)
    written = datetime.fromtimestamp(date).isoformat(timespec="seconds").replace(":", "-")  # as names of files have it
    return source.time or written, float(date)


def runs_of(sources: Sequence[Source]) -> list[list[Source]]:
    """Sort calls into runs: of one model, and of each task once."""
    runs: dict[str, list[list[Source]]] = defaultdict(list)
    for source in sorted(sources, key=when):
        of_model = runs[source.model]
        if not of_model or any(source.samples.keys() & other.samples.keys() for other in of_model[-1]):
            of_model.append([])
        of_model[-1].append(source)
    return [run for of_model in runs.values() for run in of_model]


def one_run(sources: Sequence[Source], paths: Sequence[str | Path]) -> list[Source]:
    """Return the calls of the only run there is; raise UserError saying what there is where there are more."""
    runs = runs_of(sources)
    if len(runs) == 1:
        return runs[0]
    raise UserError(_choice(runs, ", ".join(map(str, paths))))


def _choice(runs: Sequence[Sequence[Source]], where: str) -> str:
    by_model: dict[str, list[Sequence[Source]]] = defaultdict(list)
    for run in runs:
        by_model[run[0].model].append(run)
    named = "results_*.json" if any(source.results_file for run in runs for source in run) else "file"
    how = f"name its {named} or choose by --latest, --model PATTERN or --task PATTERN"
    listed = some([_described(model, of_model) for model, of_model in by_model.items()], SHOWN, "; ")
    models = f"{len(by_model)} models" if len(by_model) > 1 else "one model"
    return f"{where} holds {len(runs)} runs of {models}: {how} (`lm-eval-calibration runs` lists them): {listed}"


def _described(model: str, runs: Sequence[Sequence[Source]]) -> str:
    times = sorted(when(source)[0] for run in runs for source in run)
    tasks = sorted({task for run in runs for source in run for task in source.samples})
    dates = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    dates = dates if len(runs) == 1 else f"{len(runs)} runs, {dates}"
    return f"{model} ({dates}: {some(tasks)})"


def matches(pattern: str, name: str) -> bool:
    """Whether a name, or what is behind its last slash, fits a glob, or has the pattern as a part; in any case."""
    small, name = pattern.lower(), name.lower()
    if re.search(r"[*?\[]", small):
        return fnmatchcase(name, small) or fnmatchcase(re.split(r"[/\\]", name)[-1], small)
    return small in name


def matching(pattern: str, names: Iterable[str], option: str, what: str) -> set[str]:
    """Return names that are meant: the one that is the pattern, or else all that match it; UserError where none is."""
    known = dict.fromkeys(names)
    exact = {name for name in known if pattern in (name, re.split(r"[/\\]|__", name)[-1])}
    found = exact or {name for name in known if matches(pattern, name)}
    if not found:
        raise UserError(f"{option} {pattern}: there are the {what} {some(list(known), SHOWN)}")
    return found


def _with_tasks(source: Source, wanted: set[str]) -> Source:
    """A call with those of its samples that are of these tasks and groups."""
    inside = within(source.results.get("group_subtasks") or {}, wanted)
    samples = {task: path for task, path in source.samples.items() if task in inside}
    narrow = replace(source, samples=samples)
    return narrow if len(samples) == len(source.samples) else replace(narrow, is_part=True)
