"""``lm-eval-calibration runs``: a line for each run that some folders hold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import counted, some
from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.formats import choose_format, print_or_write
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import json_text
from lm_eval_calibration.reports.tables import csv_table, markdown_table, plain_table
from lm_eval_calibration.results import Selection, Source, find_sources
from lm_eval_calibration.results.configuration import Configuration
from lm_eval_calibration.results.selection import when


class Listed(NamedTuple):
    """A call of the harness: tasks that have samples, settings as far as they are known, what to name to read it.

    ``docs`` is their number: where no results count them, of what can be read, and None where nothing can.
    """

    model: str
    date: str
    tasks: tuple[str, ...]
    docs: int | None
    settings: str
    path: str

    @property
    def cells(self) -> list[str]:
        """What a table shows."""
        docs = "?" if self.docs is None else str(self.docs)
        tasks = some(list(map(shown, self.tasks)))
        return [shown(self.model), self.date, tasks, docs, self.settings, self.path]


def list_runs(folders: Sequence[Path], select: Selection, *, form: str | None, output: Path | None) -> None:
    """Print or write the list; the arguments are the command's."""
    form = choose_format(form, output, FORMATS, default="table")
    found = find_sources(folders)
    for reason in found.broken.values():
        typer.echo(f"note: left out: {reason}", err=True)
    runs = [listed(source) for source in sorted(select.of(found.sources), key=when)]
    print_or_write(FORMATS[form](runs), output, counted(len(runs), what="runs"))


def listed(source: Source) -> Listed:
    """Return the line of a call of the harness."""
    where = source.results_file or (source.folder if len(source.samples) > 1 else next(iter(source.samples.values())))
    return Listed(
        source.model, when(source)[0], tuple(sorted(source.samples)), _docs(source), _settings(source), str(where)
    )


def _docs(source: Source) -> int | None:
    """Number of docs by the results, or of lines."""
    sizes = source.results.get("n-samples") or {}
    counts: list[Any] = [size.get("effective") for task, size in sizes.items() if size and task in source.samples]
    if len(counts) == len(source.samples) and None not in counts:
        return int(sum(counts))
    found = [n for task, path in source.samples.items() if (n := _docs_in(source, task, path)) is not None]
    return sum(found) if found else None


def _docs_in(source: Source, task: str, path: Path) -> int | None:
    """Number of docs of a file; None where it can't be read."""
    try:
        if source.form is not None:
            return sum(1 for _ in source.form.samples(path, task))
        return sum(len(lines) for _, lines in JsonLines(path).blocks())
    except (UserError, ValueError):
        return None


def _settings(source: Source) -> str:
    """Backend, shots, limit and chat template, as far as they are known."""
    configuration, config = Configuration((source,)), source.results.get("config") or {}
    shots = sorted({shots for task, shots in configuration.num_fewshot.items() if task in source.samples})
    parts = [source.form.name] if source.form else [str(config["model"])] if config.get("model") else []
    parts += [f"{'/'.join(map(str, shots))}-shot"] if shots else []
    parts += [f"limit {config['limit']:g}"] if isinstance(config.get("limit"), int | float) else []
    parts += ["chat template"] if configuration.chat_template else []
    return ", ".join(parts)


HEADS = ("model", "date", "tasks", "docs", "settings", "path")


def _json(listed: Sequence[Listed]) -> str:
    return json_text([one._asdict() | {"tasks": list(one.tasks)} for one in listed])


def _csv(listed: Sequence[Listed]) -> str:
    rows = [(o.model, o.date, " ".join(o.tasks), "" if o.docs is None else o.docs, o.settings, o.path) for o in listed]
    return csv_table(HEADS, rows)


FORMATS: dict[str, Callable[[Sequence[Listed]], Any]] = {
    "table": lambda listed: "\n".join(plain_table(HEADS, [one.cells for one in listed])) + "\n",
    "md": lambda listed: "\n".join(markdown_table(HEADS, [map(markdown, one.cells) for one in listed])) + "\n",
    "csv": _csv,
    "json": _json,
}
"""Functions by the name of their format."""
