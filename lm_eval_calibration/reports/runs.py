"""Several runs of one command: given as PATH or NAME=PATH, with the tasks that they have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import some, visible
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.results import Run, Selection
from lm_eval_calibration.results.identity import are_same_files, labels
from lm_eval_calibration.results.loading import FoundRun, find_run, find_runs
from lm_eval_calibration.results.selection import matching


def name_and_path(text: str) -> tuple[str, Path]:
    """Return the name and the path of NAME=PATH; of PATH, the name is "" (a folder's own name may have an =)."""
    name, equals, path = text.partition("=")
    return ("", Path(text)) if not equals or not name or Path(text).exists() else (name, Path(path))


def find_named(results: Sequence[str], select: Selection) -> tuple[list[str], list[FoundRun]]:
    """Return the names and the runs that arguments of the command mean; one folder means all, or each model's latest.

    Raises:
        UserError: fewer than two.
    """
    if len(results) == 1:
        found = find_runs(name_and_path(results[0])[1], select=replace(select, latest=False))
        if select.latest:
            found = list({one.sources[0].model: one for one in found}.values())
        names = [""] * len(found)
    else:
        names, paths = map(list, zip(*map(name_and_path, results), strict=True)) if results else ([], [])
        found = [find_run(path, select=select) for path in paths]
    if len(found) < 2:
        raise UserError("compare needs two runs at least")
    return names, found


def read_runs(
    names: Sequence[str],
    found: Sequence[FoundRun],
    n_bins: int | None,
    cluster: str | None = None,
    *,
    is_strict: bool = True,
) -> dict[str, Run]:
    """Read the runs, by label.

    Args:
        names: that they were given; "" for those that go by their model.
        found: the runs.
        n_bins: as of :func:`~lm_eval_calibration.results.load_run`.
        cluster: as well.
        is_strict: whether a run of which nothing can be read is an error, and not just noted.

    Raises:
        UserError: one run or one name twice, different numbers of bins, or fewer than two that can be read.
    """
    read: list[tuple[str, Path, Run]] = []
    for name, one in zip(names, found, strict=True):
        try:
            read.append((name, one.place, one.load(n_bins, cluster)))
        except UserError as error:
            if is_strict:
                raise
            echo_note(f"left out: {error}")
    if len(read) < 2:
        raise UserError("compare needs two runs at least that can be read")
    names, places, runs = zip(*read, strict=True)
    for (run, place), (other, other_place) in combinations(zip(runs, places, strict=True), 2):
        if are_same_files(run, other):
            raise UserError(f"{place} and {other_place} are the same files")
    if len({run.n_bins for run in runs}) > 1:
        listed = ", ".join(f"{run.n_bins} in {place}" for run, place in zip(runs, places, strict=True))
        raise UserError(f"the runs have different numbers of bins ({listed}): --n_bins computes all alike")
    return by_name([name or label for name, label in zip(names, labels(runs), strict=True)], runs)


def by_name(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by what :func:`shown_names` gives them."""
    return dict(zip(shown_names(names, [run.model for run in runs]), runs, strict=True))


def shown_names(names: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return runs' names, or the ones that these or their models were renamed to.

    Raises:
        UserError: two of them have the same name.
    """
    found = list(map(label_of, models, names))
    if len(set(found)) < len(found):
        raise UserError(f"two runs have the same name ({', '.join(found)}): give others as NAME=PATH")
    return found


def label_of(model: str, name: str) -> str:
    """Return the name of a model's run, or what it or the model was renamed to."""
    own = model.rpartition("/")[2]
    if shown(name) == name and name.startswith(own) and shown(model) != model:
        return shown(model) + name.removeprefix(own)
    return shown(name)


def print_notes(*runs: Run) -> None:
    """Say on standard error what of runs is left out, and why; of several runs the same once."""
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        echo_note(note)


def echo_note(note: str) -> None:
    """Say on standard error what is left out, and why."""
    typer.echo(f"note: {visible(note)}", err=True)


def common_tasks(runs: Mapping[str, Run]) -> list[str]:
    """Return the tasks that all runs (by name) have.

    Raises:
        UserError: there are none.
    """
    common = [task for task in next(iter(runs.values())).tasks if all(task in run.tasks for run in runs.values())]
    if not common:
        listed = "; ".join(f"{name} has {', '.join(run.tasks)}" for name, run in runs.items())
        raise UserError(f"the runs have no task in common: {listed}")
    return common


def answered_tasks(runs: Mapping[str, Run]) -> list[str]:
    """Return the common tasks that have docs with a sound gold label and a confidence in all runs.

    Raises:
        UserError: there are none.
    """
    common = common_tasks(runs)
    found = [task for task in common if all(run.docs[task].has_answers for run in runs.values())]
    if not found:
        raise UserError(f"{some(common)}: in one of the runs no doc has a sound gold label and a confidence")
    return found


def meant(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the tasks and groups in common that ``--task`` names, each once; raise UserError where it names none."""
    known = list(names)
    found = (matching(pattern, known, "--task", "tasks and groups in common") for pattern in patterns)
    return list(dict.fromkeys(name for of_pattern in found for name in known if name in of_pattern))


def has_distributions(run: Run) -> bool:
    """Return whether every task of the run has token distributions, which ``full_ece`` needs."""
    try:
        run.arrays("full_vocabulary")
    except ValueError:
        return False
    return True
