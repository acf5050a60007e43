"""What the running ``evaluate`` of the harness was called with, which the harness does not pass to tasks."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from lm_eval_calibration.harness.log import run_log


@dataclass(frozen=True)
class RunSettings:
    """What tasks need to know of a run.

    Attributes:
        lm: the backend; None outside a run.
        tasks: all tasks of the run by name.
        log_samples: whether samples are kept.
        bootstrap_iters: resamples for the harness's standard errors; none at all where this is 0 or None.
    """

    lm: Any = None
    tasks: Mapping[str, Any] = field(default_factory=dict)
    log_samples: bool = True
    bootstrap_iters: int | None = 1

    @property
    def has_stderrs(self) -> bool:
        """Whether the table shows standard errors, as the harness decides."""
        return isinstance(self.bootstrap_iters, int) and self.bootstrap_iters > 0


_RUN: ContextVar[RunSettings | None] = ContextVar("lm_eval_calibration_run", default=None)


def current_run() -> RunSettings:
    """Return the settings of the run that this is part of, or the defaults outside a run."""
    return _RUN.get() or RunSettings()


@contextmanager
def running(settings: RunSettings) -> Iterator[None]:
    """Let :func:`current_run` return these settings."""
    token = _RUN.set(settings)
    try:
        yield
    finally:
        _RUN.reset(token)


def with_run_settings(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Return the harness's ``evaluate``, which lets :func:`current_run` know how it was called."""
    signature = inspect.signature(evaluate)

    @wraps(evaluate)
    def patched(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        settings = RunSettings(
            lm=given["lm"],
            tasks=(given["task_dict"] or {}).get("tasks", {}),
            log_samples=given["log_samples"],
            bootstrap_iters=given["bootstrap_iters"],
        )
        with running(settings), run_log() as log:
            results = evaluate(*args, **kwargs)
            if results is not None:  # the other ranks return nothing, and warn of nothing that all docs show
                log.flush()
            return results

    return patched
