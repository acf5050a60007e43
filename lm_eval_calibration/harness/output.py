"""What a run writes: whole or not at all, and never lost in silence.

The harness writes results and samples in place, and of what it can't write it only logs "Could not save".
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lm_eval.loggers import evaluation_tracker as tracker

from lm_eval_calibration.errors import OutputError
from lm_eval_calibration.records import files

COULD_NOT_SAVE = "Could not save"
"""Begins what the harness logs where it has caught an error in saving a file."""


class NotSavedError(OutputError):
    """What a run computes can't be saved: nothing is wrong with what the user asked for."""

    exit_code = 1


def check_writable(output_path: str) -> None:
    """Raise NotSavedError if nothing can be written where the harness's ``--output_path`` says."""
    path = Path(output_path)
    try:
        files.check_writable(path.parent if path.suffix == ".json" else path)
    except OutputError as error:
        raise NotSavedError(str(error)) from error


@contextmanager
def whole_files() -> Iterator[None]:
    """Let the harness write its files whole or not at all.

    Raises:
        NotSavedError: at the end, naming the files that could not be written.
    """
    failures: list[str] = []

    class File(type(Path())):  # type: ignore[misc]
        """The harness's ``Path``."""

        def write_text(self, text: str, encoding: str | None = None) -> int:
            with _opened(self, failures) as file:
                return file.write(text)

    names = {"open": lambda path, *_, **__: _opened(path, failures), "Path": File}
    with ExitStack() as changes:
        for name, value in {**names, "eval_logger": _Noting(tracker.eval_logger, failures)}.items():
            _set(changes, name, value)
        yield
    if failures:
        raise NotSavedError(f"not everything was saved: {'; '.join(dict.fromkeys(failures))}")


def _set(changes: ExitStack, name: str, value: Any) -> None:
    before = vars(tracker).get(name)
    changes.callback(lambda: setattr(tracker, name, before) if before is not None else delattr(tracker, name))
    setattr(tracker, name, value)


@contextmanager
def _opened(path: Any, failures: list[str]) -> Iterator[io.TextIOWrapper]:
    try:
        with files.whole_file(Path(path)) as binary:
            # A lone surrogate in a doc is written as the escape that JSON has for it.
            text = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="")
            yield text
            text.detach()
    except BaseException as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}"
        failures.append(f"{path} can't be written: {reason}")
        raise


class _Noting(logging.LoggerAdapter):  # type: ignore[type-arg]
    """The harness's logger, which also notes what it could not save and did not get as far as a file."""

    def __init__(self, logger: logging.Logger, failures: list[str]) -> None:
        super().__init__(logger, {})
        self._failures = failures

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        """Warn."""
        error = sys.exc_info()[1]
        if str(msg).startswith(COULD_NOT_SAVE) and error is not None and not self._failures:
            what = str(msg).removeprefix(COULD_NOT_SAVE).strip()
            named = str(error) if isinstance(error, OutputError) else type(error).__name__
            self._failures.append(f"{what}: {getattr(error, 'strerror', None) or named}")
        super().warning(msg, *args, **options)
