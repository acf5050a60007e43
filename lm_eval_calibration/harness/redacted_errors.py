"""Errors without what they say: their type, our line, and the ids of task and doc."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from lm_eval_calibration.errors import OutputError, UserError

PACKAGE = Path(__file__).parents[1]

LEFT_OUT = "--redact leaves out what it says"


class RedactedError(UserError):
    """An error of which only type, place and ids are known."""

    def __init__(self, error: Exception) -> None:
        super().__init__(description(error))
        self.exit_code = getattr(error, "exit_code", 1)


def description(error: BaseException) -> str:
    """Return an error's type, our line, and the ids of task and doc; nothing of its message."""
    frames = list(_frames(error.__traceback__))
    ours = [(frame, line) for frame, line in frames if _is_ours(frame)]
    place = "".join(f" at {_name(frame)}, line {line}" for frame, line in ours[-1:])
    ids = getattr(error, "ids", "") or _ids([frame for frame, _ in frames])
    return f"{type(error).__name__}{place}{ids and f', {ids}'} ({LEFT_OUT})"


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_ours(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(PACKAGE) and "redact" not in frame.f_code.co_filename


def _name(frame: FrameType) -> str:
    return str(Path(frame.f_code.co_filename).relative_to(PACKAGE.parent))


def _ids(frames: list[FrameType]) -> str:
    """Return task and doc that these frames were about, as far as the harness's loops name them."""
    task, doc = "", ""
    for frame in frames:
        values = frame.f_locals
        name = getattr(values.get("self"), "task_name", None) or values.get("task_name")
        task = f"task {name}" if isinstance(name, str) else task
        doc = f"doc {values['doc_id']}" if isinstance(values.get("doc_id"), int) else doc
    return ", ".join(filter(None, (task, doc)))


@contextmanager
def redacted_errors(docs_are_read: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Raise errors without what they say, since that may be a text of a doc.

    Args:
        docs_are_read: whether any docs have been read; a UserError says nothing of any before.

    Raises:
        RedactedError: in the place of an error.
    """
    try:
        yield
    except OutputError:
        raise  # names files of ours
    except UserError as error:
        if not docs_are_read():
            raise
        raise RedactedError(error) from None
    except Exception as error:
        raise RedactedError(error) from None
