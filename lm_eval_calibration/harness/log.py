"""Warnings that are worth one line in a run, also where many of its tasks have the same reason for them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

N_NAMED = 3
"""Tasks that a line about many of them names."""


def label(tasks: Sequence[str]) -> str:
    """Return how a line calls tasks: the name of one, or the number of a group's tasks and one of their names."""
    return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks ({tasks[0]}, ...)"


class RunLog(logging.Filter):
    """Lets a run warn once of what several of its parts warn of, and keeps what waits for its end."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()
        self._waiting: dict[str, dict[tuple[str, ...], str]] = {}  # summary: tasks: message

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is no warning of this run, or one that it has not given yet."""
        if _LOG.get() is not self:
            return True
        message = record.getMessage()
        is_new = record.levelno < logging.WARNING or message not in self._warned
        self._warned.add(message)
        return is_new

    def warn_at_the_end(self, tasks: Sequence[str], message: str, summary: str) -> None:
        """Keep a message about a task or group until it is known which others share its summary."""
        self._waiting.setdefault(summary, {}).setdefault(tuple(tasks), message)

    def flush(self) -> None:
        """Warn of what has waited: one line for each summary."""
        for summary, messages in self._waiting.items():
            if len(messages) == 1:
                ((tasks, message),) = messages.items()
                logger.warning("%s: %s", label(tasks), message)
            else:
                logger.warning("%s: %s", _label_of_several(list(messages)), summary)
        self._waiting.clear()


def _label_of_several(pools: Sequence[Sequence[str]]) -> str:
    names, groups = [pool[0] for pool in pools if len(pool) == 1], [pool for pool in pools if len(pool) > 1]
    more = ", ..." if len(names) > N_NAMED else ""
    parts = [label(names)] if len(names) == 1 else []
    if len(names) > 1:
        parts.append(f"{len(names)} tasks ({', '.join(names[:N_NAMED])}{more})")
    if groups:
        parts.append(f"{len(groups)} groups" if len(groups) > 1 else f"a group of {label(groups[0])}")
    return " and ".join(parts)


_LOG: ContextVar[RunLog | None] = ContextVar("lm_eval_calibration_log", default=None)


@contextmanager
def run_log() -> Iterator[RunLog]:
    """Let the warnings of a run go to a log of its own."""
    token = _LOG.set(log := RunLog())
    logger.addFilter(log)
    try:
        yield log
    finally:
        logger.removeFilter(log)
        _LOG.reset(token)


def warn_of_tasks(tasks: Sequence[str], message: str, summary: str = "") -> None:
    """Warn of something that tasks may share with others: within a run at its end, in one line for all of them.

    Args:
        tasks: the name of the task, or of each task of a group.
        message: about these alone.
        summary: about several, where that is another text.
    """
    if (log := _LOG.get()) is None:
        logger.warning("%s: %s", label(tasks), message)
    else:
        log.warn_at_the_end(tasks, message, summary or message)
