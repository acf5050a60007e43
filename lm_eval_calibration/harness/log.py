"""Warnings that are worth one line in a run, also where many of its tasks have the same reason for them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

N_NAMED = 3
"""Tasks that a line about many of them names."""


class RunLog:
    """What one run has warned of, and what waits for its end."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._waiting: dict[str, dict[str, str]] = {}  # summary: task: message

    def warn_once(self, message: str) -> None:
        """Warn, unless this run has done so already."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)

    def warn_at_the_end(self, task: str, message: str, summary: str) -> None:
        """Keep a message about a task until it is known which tasks share its summary."""
        self._waiting.setdefault(summary, {}).setdefault(task, message)

    def flush(self) -> None:
        """Warn of what has waited: one line for each summary."""
        for summary, messages in self._waiting.items():
            tasks = list(messages)
            if len(tasks) == 1:
                self.warn_once(f"{tasks[0]}: {messages[tasks[0]]}")
            else:
                more = ", ..." if len(tasks) > N_NAMED else ""
                self.warn_once(f"{len(tasks)} tasks ({', '.join(tasks[:N_NAMED])}{more}): {summary}")
        self._waiting.clear()


_LOG: ContextVar[RunLog | None] = ContextVar("lm_eval_calibration_log", default=None)


@contextmanager
def run_log() -> Iterator[RunLog]:
    """Let the warnings of a run go to a log of its own."""
    token = _LOG.set(log := RunLog())
    try:
        yield log
    finally:
        _LOG.reset(token)


def warn_once(message: str) -> None:
    """Warn; within a run, unless it has done so already."""
    (_LOG.get() or RunLog()).warn_once(message)


def warn_of_task(task: str, message: str, summary: str = "") -> None:
    """Warn of something that a task may share with others: within a run at its end, in one line for all of them.

    Args:
        task: its name.
        message: about this task alone.
        summary: about several tasks, where that is another text.
    """
    if (log := _LOG.get()) is None:
        warn_once(f"{task}: {message}")
    else:
        log.warn_at_the_end(task, message, summary or message)
