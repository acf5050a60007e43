"""Lines in the log that are worth saying once in a run; what many tasks have in common is one line for all of them."""

import logging

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

NAMED = 3
"""Tasks that a line for many of them names."""

_said: set[str] = set()
_waiting: dict[str, dict[str, str]] = {}  # topic: task: message
_collects = False


def say_once(message: str) -> None:
    """Warn, unless this run has said so already."""
    if message not in _said:
        _said.add(message)
        logger.warning(message)


def say_of(task: str, message: str, topic: str = "") -> None:
    """Warn of something that a task shares with others: at the end of the run, in one line for all of them.

    Args:
        task: its name.
        message: what is to be said of this task alone.
        topic: what is to be said of several, if not the same.
    """
    if _collects:
        _waiting.setdefault(topic or message, {}).setdefault(task, message)
    else:
        say_once(f"{task}: {message}")


def collect() -> None:
    """Let :func:`say_of` wait for the end of the run."""
    global _collects  # noqa: PLW0603  (a run is a state of the process: the harness gives tasks no object of it)
    _collects = True


def say_collected() -> None:
    """Say what was waiting: the run has all its numbers."""
    global _collects  # noqa: PLW0603  (see above)
    _collects = False
    for topic, messages in _waiting.items():
        tasks = list(messages)
        if len(tasks) == 1:
            say_once(f"{tasks[0]}: {messages[tasks[0]]}")
        else:
            more = ", ..." if len(tasks) > NAMED else ""
            say_once(f"{len(tasks)} tasks ({', '.join(tasks[:NAMED])}{more}): {topic}")
    _waiting.clear()


def new_run() -> None:
    """Forget what was said: the next run says it again."""
    global _collects  # noqa: PLW0603  (see above)
    _collects = False
    _said.clear()
    _waiting.clear()
