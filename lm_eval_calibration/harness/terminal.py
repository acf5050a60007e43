"""A run's terminal for people: bars that vanish, warnings once and at the end, tables that fit, no lines of every step.

Without it, as with ``--verbosity``, everything shows that the harness and its libraries say.
"""

import inspect
import logging
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import wraps
from typing import Any

import lm_eval.utils
from tqdm import tqdm

from lm_eval_calibration.errors import UserError

LIBRARIES = {
    "lm_eval": "lm-eval",
    "transformers": "transformers",
    "datasets": "datasets",
    "huggingface_hub": "hub",
    "accelerate": "accelerate",
}
"""Loggers with handlers of their own, and how a warning names its source."""

OURS = "lm_eval.calibration"

SLOW_SECONDS = 60.0
"""Where nobody looks, as in a log file, a bar shows after so long, and then as often."""

DROPPED = ("Version", "Filter", "n-shot")
"""Columns of the harness's table that are left out, in this order, where it is wider than the terminal."""

FOR_TASK_WRITERS = "Custom kwargs can be passed to"
"""How a hint of the harness begins that it gives for every task with rows of its own, and nobody who runs one needs."""

MIN_NAME = 12
"""Characters of a task's name that stay, however narrow the terminal."""


class Warnings(logging.Handler):
    """Keeps what is warned of, each once, by its source; shows errors at once and nothing that is less."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, dict[str, None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning, or print an error."""
        if record.levelno >= logging.ERROR:
            print(record.getMessage(), file=sys.stderr)
        elif FOR_TASK_WRITERS not in record.getMessage():
            library = LIBRARIES.get(record.name.partition(".")[0], record.name)
            self.keep("calibration" if record.name == OURS else library, record.getMessage())

    def keep(self, source: str, message: str) -> None:
        """Keep a message."""
        self.messages.setdefault(source, {}).setdefault(" ".join(message.split()))

    def lines(self, width: int) -> list[str]:
        """Return the messages, grouped by their sources, in lines of at most this width."""
        lines = ["Warnings"] if self.messages else []
        indent = 4 + max(map(len, self.messages), default=0)
        for source, messages in sorted(self.messages.items()):
            for first, message in zip([source, *[""] * len(messages)], messages, strict=False):
                start = f"  {first}".ljust(indent)
                lines += textwrap.wrap(
                    message, max(width, 2 * indent), initial_indent=start, subsequent_indent=" " * indent
                )
        return lines


@contextmanager
def for_people(is_wanted: bool = True) -> Iterator[Warnings]:
    """Let what runs within show progress, errors and tables; print its warnings at the end.

    Args:
        is_wanted: else everything shows as the harness and its libraries show it.
    """
    kept = Warnings()
    if not is_wanted:
        yield kept
        return
    lm_eval.utils.setup_logging()  # adds its handler now or never
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    handlers = [logger.handlers for logger in loggers]
    shown, init, make_table = warnings.showwarning, tqdm.__init__, lm_eval.utils.make_table
    try:
        for logger in loggers:
            logger.handlers = [kept]
        warnings.showwarning = lambda message, *_, **__: kept.keep("python", str(message))
        tqdm.__init__ = _vanishing(init)
        lm_eval.utils.make_table = _fitting(make_table)
        yield kept
    finally:
        for logger, of_logger in zip(loggers, handlers, strict=True):
            logger.handlers = of_logger
        warnings.showwarning, tqdm.__init__, lm_eval.utils.make_table = shown, init, make_table
        sys.stdout.flush()  # the table comes first, also where both streams go into one file
        for line in kept.lines(shutil.get_terminal_size().columns if sys.stderr.isatty() else sys.maxsize):
            print(line, file=sys.stderr)


def set_verbosity(level: str) -> None:
    """Let the harness log from this level on, as with its ``--verbosity``.

    Raises:
        UserError: no such level.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise UserError(f"--verbosity {level}: there are {', '.join(logging.getLevelNamesMapping())}")
    lm_eval.utils.setup_logging(level.upper())


def _vanishing(init: Callable[..., None]) -> Callable[..., None]:
    """Return the initialiser of progress bars that vanish at their end, and never show where there is nothing to do."""
    signature = inspect.signature(init)

    @wraps(init)
    def patched(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        total, iterable = given.get("total"), given.get("iterable")
        if total == 0 or (total is None and isinstance(iterable, Sized) and len(iterable) == 0):
            given["disable"] = True
        given["leave"] = False
        if not (given.get("file") or sys.stderr).isatty():
            given |= dict.fromkeys(("mininterval", "maxinterval", "delay"), SLOW_SECONDS)
        init(*call.args, **call.kwargs)

    return patched


def _fitting(make_table: Callable[..., str]) -> Callable[..., str]:
    """Return the harness's function that makes its table, which then fits the terminal."""

    @wraps(make_table)
    def patched(*args: Any, **kwargs: Any) -> str:
        table = make_table(*args, **kwargs)
        return fitted_table(table, shutil.get_terminal_size().columns) if sys.stdout.isatty() else table

    return patched


def fitted_table(table: str, width: int) -> str:
    """Return a table of the harness in at most this width: fewer columns, and shorter names where these don't do.

    A last line says which columns are left out and what shows them.
    """
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    needed, heads = max(map(len, table.splitlines()), default=0), [head.strip() for head in (rows or [[]])[0]]
    dropped: list[int] = []
    while sum(len(cell) + 1 for i, cell in enumerate(rows[0]) if i not in dropped) + 1 > width:
        if not (left := [heads.index(name) for name in DROPPED if heads.index(name) not in dropped]):
            break
        dropped.append(left[0])
    if not dropped:
        return table
    rows = [[cell for i, cell in enumerate(row) if i not in dropped] for row in rows]
    room = max(MIN_NAME, width - sum(len(cell) + 1 for cell in rows[0][1:]) - 2)
    rows[0][0] = rows[0][0].strip().ljust(len(rows[0][0]))  # the harness centres it
    lines = ["|".join(["", _shortened(row[0], room), *row[1:], ""]) for row in rows]
    left_out = ", ".join(heads[i] for i in dropped)
    return "\n".join([*lines, f"(not shown: {left_out}; a terminal of {needed} columns shows them)"])


def _shortened(name: str, room: int) -> str:
    """Return a name with its middle left out where it has no room."""
    text = name.rstrip(" -")  # of the rule below the heads, nothing
    if len(text) <= room:
        return name[:room]
    return f"{text[: room // 2]}…{text[len(text) - (room - 1) // 2 :]}".ljust(room)
