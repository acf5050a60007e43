"""What a redacted run says: our own lines, and of everything else that it happened, where, and to which doc.

No text that came from a doc is formatted for anybody to see. What the harness, models, libraries and the functions of
tasks print, log or raise may hold such texts, and so may our own errors once the docs are read. Of these the type, our
line and the ids of task and doc are shown.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask, Task

from lm_eval_calibration.harness.redacted_errors import LEFT_OUT, description, redacted_errors

OURS = "lm_eval.calibration"
"""The logger whose lines hold no texts of docs."""

_TABLES, _LINES = ("lm_eval._cli.run",), ("tqdm", "logging", "lm_eval_calibration.harness.terminal")
"""Modules that may write to standard output, and to standard error."""


class _Stream:
    """A stream that takes lines of some modules alone: what others print is dropped."""

    def __init__(self, stream: Any, modules: tuple[str, ...]) -> None:
        self._stream, self._modules = stream, modules

    def write(self, text: str) -> int:
        """Write what one of the modules says."""
        module = sys._getframe(1).f_globals.get("__name__", "")
        if any(module == name or module.startswith(f"{name}.") for name in self._modules):
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Docs:
    """Whether any docs have been read."""

    are_read = False

    def reading(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that reads docs, and notes that it has."""

        def read(*args: Any, **kwargs: Any) -> Any:
            self.are_read = True
            return method(*args, **kwargs)

        return read


@contextmanager
def redacted_output() -> Iterator[None]:
    """Let nothing be printed, logged or raised that may hold a text of a doc.

    Raises:
        UserError: as it was raised, before any docs were read.
        RedactedError: whatever was raised afterwards.
    """
    docs = _Docs()
    with ExitStack() as changes:
        _log_templates(changes)
        for stream, modules in ((redirect_stdout, _TABLES), (redirect_stderr, _LINES)):
            original = sys.stdout if stream is redirect_stdout else sys.stderr
            changes.enter_context(stream(_Stream(original, modules)))
        for task in (Task, ConfigurableTask):
            _set(changes, task, "download", docs.reading(task.download))
        _set(changes, warnings, "showwarning", _show_warning)
        _set(changes, sys, "unraisablehook", lambda args: _log(args.exc_value))
        _set(changes, threading, "excepthook", lambda args: _log(args.exc_value))
        with redacted_errors(lambda: docs.are_read):
            yield


def _set(changes: ExitStack, owner: Any, name: str, value: Any) -> None:
    changes.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _log_templates(changes: ExitStack) -> None:
    """Let log records of others say only where they come from, and be seen only from warnings on."""
    make = logging.getLogRecordFactory()

    def make_redacted(name: str, level: int, path: str, line: int, *said: Any, **more: Any) -> logging.LogRecord:
        message, args, _, *rest = said  # the third is an error, for its traceback
        if name != OURS:
            message, args = f"{name}, line {line} ({LEFT_OUT})", ()
        return make(name, level, path, line, message, args, None, *rest, **more)

    logging.setLogRecordFactory(make_redacted)
    changes.callback(logging.setLogRecordFactory, make)
    changes.callback(logging.disable, logging.root.manager.disable)
    logging.disable(logging.INFO)


def _show_warning(message: Any, category: type, filename: str, lineno: int, *_: Any) -> None:
    logging.getLogger(OURS).warning("%s at %s, line %d (%s)", category.__name__, Path(filename).name, lineno, LEFT_OUT)


def _log(error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger(OURS).warning("%s", description(error))
