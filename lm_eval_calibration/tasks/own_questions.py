"""People's own multiple-choice questions as a task: which column is what, and which option an answer means."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.tasks.files import Function
from lm_eval_calibration.tasks.question_files import Row, Table, read_table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

QUESTION, CHOICES, ANSWER = "question", "choices", "answer"
"""Fields of a doc; its other columns keep their names, and their values as texts."""

QUESTION_NAMES = ("question", "prompt", "query", "stem")
ANSWER_NAMES = ("answer", "gold", "label", "correct_answer", "correct", "target", "answer_key", "answer_idx", "cop")
OPTIONS_NAMES = ("options", "choices", "answers")
"""Names of columns by which they are guessed, whatever their case."""

LOAD = "lm_eval_calibration.tasks.own_questions.load"

_ONE_OPTION = re.compile(r"(option|choice|opt|op|answer)?[ _-]?([a-h]|[0-8])", re.IGNORECASE)


class CellError(TaskError):
    """A cell can't be used. ``where`` says which, and quotes nothing of it."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


Reading = Callable[[str, Sequence[str]], int | None]


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Attributes:
        question: of the question.
        options: one column for each option, or one that holds all of a row's options.
        answer: of the right answer.
        answers_are: how it is written: one of :data:`READINGS`.
    """

    question: str
    options: tuple[str, ...]
    answer: str
    answers_are: str


def find_columns(
    table: Table,
    *,
    question: str | None = None,
    options: str | None = None,
    answer: str | None = None,
    answers_are: str | None = None,
) -> tuple[Columns, list[str]]:
    """Return which column is what, and what of that was guessed, in words.

    Args:
        table: the rows.
        question: column of the question; guessed by its name where not given.
        options: columns of the options, separated by commas, or a column that holds them all; likewise.
        answer: column of the answers; likewise.
        answers_are: how answers are written; told from all of them where not given.

    Raises:
        TaskError: no such column; none or several that could be meant; an answer that is none of its options.
    """
    guessed = []
    named = {"question": question, "options": options, "answer": answer}
    if question is None:
        question = _only(table, "question", [c for c in table.columns if c.lower() in QUESTION_NAMES])
    if answer is None:
        answer = _only(table, "answer", [c for c in table.columns if c.lower() in ANSWER_NAMES])
    columns = tuple(_guessed_options(table, {question, answer}) if options is None else _named(table, options))
    check_column(table, question, answer)
    found = {"question": question, "options": ",".join(columns), "answer": answer}
    guessed += [f"--{name} {found[name]}" for name, value in named.items() if value is None]
    how = _how_answers_are_written(table, Columns(question, columns, answer, ""), answers_are)
    return Columns(question, columns, answer, how), guessed


def docs_of(table: Table, columns: Columns) -> list[dict[str, Any]]:
    """Return the docs: question, choices, answer (an index from 0), and the other columns.

    Raises:
        TaskError: naming row and column: no question, fewer than two options, an option that is empty or there twice,
            an answer that is none of them.
    """
    read, used = READINGS[columns.answers_are], {columns.question, *columns.options, columns.answer}
    docs = []
    for row, where in zip(table.rows, table.locations, strict=True):
        question, choices = _text(row.get(columns.question)), _choices(row, columns, where)
        if not question:
            raise CellError(f"{where}, column {columns.question}", "there is no question")
        written = _text(row.get(columns.answer))
        if (index := read(written, choices)) is None:
            raise CellError(f"{where}, column {columns.answer}", _misfit(written, choices, columns.answers_are))
        rest = {str(key): _shown(value) for key, value in row.items() if key not in used}
        docs.append({**rest, QUESTION: question, CHOICES: choices, ANSWER: index})
    return docs


def load(source: str, columns: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
    """Return the docs as the harness's ``custom_dataset`` wants them: a split of rows. A task YAML names this."""
    from datasets import Dataset

    known = Columns(**{**columns, "options": tuple(columns["options"])})
    return {"test": Dataset.from_list(docs_of(read_table(source), known))}


def task_config(name: str, source: str, columns: Columns) -> dict[str, Any]:
    """Return the keys of the task's YAML: a question, its options under letters, and the letter as the answer."""
    where = Path(source).expanduser()
    return {
        "task": name,
        "custom_dataset": Function(LOAD),
        "dataset_kwargs": {
            "source": str(where.resolve()) if where.is_file() else source,
            "columns": {**asdict(columns), "options": list(columns.options)},
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\n{% for choice in choices %}{{'" + LETTERS + "'[loop.index0]}}. "
        "{{choice}}\n{% endfor %}Answer:",
        "doc_to_choice": "{{'" + LETTERS + "'[:choices|length]|list}}",
        "doc_to_target": ANSWER,
        "metric_list": [{"metric": metric} for metric in ("acc", *CORE)],
        "metadata": {"version": 1},
    }


# --- columns ----------------------------------------------------------------------------------------------------------


def _only(table: Table, what: str, candidates: Sequence[str]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    found = f"several could be the {what} ({', '.join(candidates)})" if candidates else f"none is named as the {what}"
    raise TaskError(f"{table.name} has the columns {', '.join(table.columns)}; {found}: name it, --{what} COLUMN")


def check_column(table: Table, *columns: str) -> None:
    """Raise TaskError where a table has no such column."""
    for column in columns:
        if column not in table.columns:
            near = nearest(column, table.columns)
            raise TaskError(f"{table.name} has no column {column!r}{near}; there are {', '.join(table.columns)}")


def _named(table: Table, options: str) -> list[str]:
    columns = [options] if options in table.columns else [name.strip() for name in options.split(",") if name.strip()]
    check_column(table, *columns)
    return columns


def _guessed_options(table: Table, others: set[str]) -> list[str]:
    """Return the columns of options: those named a, b, c or option_1, option_2 alike, or one named as all of them."""
    lists = [c for c in table.columns if c.lower() in OPTIONS_NAMES and c not in others]
    families: dict[str, list[str]] = {}
    for column in table.columns:
        if column not in others and (found := _ONE_OPTION.fullmatch(column)):
            families.setdefault(f"{found[1] or ''} {found[2].isdigit()}".lower(), []).append(column)
    several = [family for family in families.values() if len(family) > 1]
    if len(lists) + len(several) == 1:
        return lists or several[0]
    candidates = [*lists, *(",".join(family) for family in several)]
    found_text = (
        f"several could be the options ({'; '.join(candidates)})" if candidates else "none are named as options"
    )
    raise TaskError(
        f"{table.name} has the columns {', '.join(table.columns)}; {found_text}: name them, --options a,b,c,d"
    )


# --- cells ------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """Return a cell as text; a whole number that a spreadsheet made a float is a whole number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else _text(value)


def _choices(row: Row, columns: Columns, where: str) -> list[str]:
    """Return a row's options; those missing at its end are left out."""
    name = ", ".join(columns.options)
    values = _one_cell(row.get(name)) if len(columns.options) == 1 else [row.get(c) for c in columns.options]
    choices = [_text(value) for value in values]
    while choices and not choices[-1]:
        choices.pop()
    column = f"{where}, column{'s' if len(columns.options) > 1 else ''} {name}"
    if "" in choices:
        raise CellError(column, f"option {LETTERS[choices.index('')]} is empty, and a later one is not")
    if not 2 <= len(choices) <= len(LETTERS):
        raise CellError(column, f"{len(choices)} options; a question has 2 to {len(LETTERS)}")
    if len(set(choices)) < len(choices):
        raise CellError(column, f"the option {next(c for c in choices if choices.count(c) > 1)!r} is there twice")
    return choices


def _one_cell(value: Any) -> list[Any]:
    """Return the options that one cell holds: a list, a list as JSON, or texts between | or ;."""
    if isinstance(value, Mapping):  # of several datasets: {"text": [...], "label": [...]}, or by letter
        return list(value["text"]) if "text" in value else list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    text = _text(value)
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except ValueError:
            listed = None
        if isinstance(listed, list):
            return listed
    return text.split("|") if "|" in text else text.split(";")


# --- answers ----------------------------------------------------------------------------------------------------------


def _as_text(written: str, choices: Sequence[str]) -> int | None:
    return choices.index(written) if written in choices else None


def _as_letter(written: str, choices: Sequence[str]) -> int | None:
    letter = written.strip("().").upper()
    index = LETTERS.find(letter) if len(letter) == 1 else -1
    return index if 0 <= index < len(choices) else None


def _as_index(first: int) -> Reading:
    def read(written: str, choices: Sequence[str]) -> int | None:
        index = int(written) - first if re.fullmatch(r"\d+", written) else -1
        return index if 0 <= index < len(choices) else None

    return read


READINGS: dict[str, Reading] = {
    "text": _as_text,
    "letter": _as_letter,
    "index_from_0": _as_index(0),
    "index_from_1": _as_index(1),
}
"""How answers are written: the option's text, its letter, or its index."""


def _how_answers_are_written(table: Table, columns: Columns, named: str | None) -> str:
    """Return the one way to read the answers that every row allows."""
    if named is not None:
        if named not in READINGS:
            raise TaskError(f"--answers_are {named}: there are {', '.join(READINGS)}")
        return named
    cells = [
        (_text(row.get(columns.answer)), _choices(row, columns, where))
        for row, where in zip(table.rows, table.locations, strict=True)
    ]
    meant = {how: [read(written, choices) for written, choices in cells] for how, read in READINGS.items()}
    fitting = [how for how, indices in meant.items() if None not in indices]
    if not fitting:  # the rows that don't fit the best one are the wrong ones
        return min(meant, key=lambda how: meant[how].count(None))
    if any(meant[how] != meant[fitting[0]] for how in fitting):
        problem = f"the answers ({_examples(cells)}) can be read as {' or '.join(fitting)}"
        raise CellError(f"{table.name}, column {columns.answer}", f"{problem}: say which, --answers_are {fitting[0]}")
    return fitting[0]


def _examples(cells: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(list(dict.fromkeys(written for written, _ in cells))[:4])


def _misfit(written: str, choices: Sequence[str], how: str) -> str:
    if not written:
        return "there is no answer"
    listed = {
        "text": "; ".join(choices),
        "letter": f"the letters A to {LETTERS[len(choices) - 1]}",
        "index_from_0": f"0 to {len(choices) - 1}",
        "index_from_1": f"1 to {len(choices)}",
    }
    return f"{written!r} is none of its options ({listed[how]})"
