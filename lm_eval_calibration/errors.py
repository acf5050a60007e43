"""What every room may raise for the command to print in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend; the message names the place and the value and says what to do.

    Args:
        message: for the user.
        ids: what may be said of the place where no text of a doc is: names of tasks and numbers of docs or lines.

    Attributes:
        exit_code: what the command ends with.
    """

    exit_code = 2

    def __init__(self, message: str = "", *, ids: str = "") -> None:
        super().__init__(message)
        self.ids = ids


class TaskError(UserError, ValueError):
    """A task, its data or its options can't be used; the message says which and what to do."""


class OutputError(UserError):
    """A file can't be written; the message names it."""


def nearest(word: object, words: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` where one of the words is near, else nothing."""
    near = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
