"""Lines in the log that are worth saying once in a run."""

import logging

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

_said: set[str] = set()


def say_once(message: str) -> None:
    """Warn, unless this run has said so already."""
    if message not in _said:
        _said.add(message)
        logger.warning(message)


def new_run() -> None:
    """Forget what was said: the next run says it again."""
    _said.clear()
