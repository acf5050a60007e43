"""Faults by injection at every step of writing: the steps are counted, none is named by hand."""

import errno
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from lm_eval_calibration.records import files

FAULTS = ("ENOSPC", "EIO", "EINTR", "short", "kill")

CHUNK = 512
"""Bytes of a raw write: so a file of some kilobytes has several."""


class Steps:
    """Counts what is asked of the system in writing; makes one step fail."""

    def __init__(self, fails_at: int = -1, fault: str = "") -> None:
        self.count, self.fails_at, self.fault = 0, fails_at, fault

    def step(self) -> str:
        """Return the fault of this step that the caller has to make itself; raise or die for the others."""
        self.count += 1
        if self.count - 1 != self.fails_at:
            return ""
        if self.fault == "kill":
            os._exit(9)
        if self.fault in ("ENOSPC", "EIO"):
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)))
        return self.fault

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is a step. (Only a write can be short or be interrupted by a signal.)"""

        def call(*args: Any, **options: Any) -> Any:
            self.step()
            return function(*args, **options)

        return call


class _Raw(io.FileIO):
    def __init__(self, descriptor: int, steps: Steps) -> None:
        super().__init__(descriptor, "w")
        self._steps, self._interrupted = steps, False

    def write(self, data: Any) -> int | None:
        fault = self._steps.step()
        if fault == "EINTR":
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        return super().write(memoryview(data)[: 1 if fault == "short" else CHUNK])


def inject(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> None:
    """Let everything that is written whole go by these steps."""

    class System:
        """The module ``os`` as ``records.files`` sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fdopen(self, descriptor: int, mode: str) -> Any:
            return io.BufferedWriter(_Raw(descriptor, steps), 1024)

    system = System()
    for name in ("fsync", "chmod", "replace"):
        setattr(system, name, steps.counted(getattr(os, name)))
    monkeypatch.setattr(files, "os", system)
    monkeypatch.setattr(files.tempfile, "mkstemp", steps.counted(tempfile.mkstemp))


def outcomes(
    save: Callable[[], Any], state: Callable[[], Any], reset: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[int, str], tuple[str, Any]]:
    """Run a saving with every fault at every step; return how it ended, and the state afterwards.

    Args:
        save: what writes.
        state: what is on the disk.
        reset: brings the disk back to what it was before.
    """
    with monkeypatch.context() as patch:
        inject(patch, counting := Steps())
        reset()
        save()
    assert counting.count > 3
    found = {}
    for step in range(counting.count):
        for fault in FAULTS:
            reset()
            child = os.fork() if fault == "kill" else None
            if child:
                ended = "killed" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9 else "not killed"
            else:
                with monkeypatch.context() as patch:
                    inject(patch, Steps(step, fault))
                    ended = _ended(save)
                if child == 0:
                    os._exit(0)
            found[step, fault] = ended, state()
    return found


def _ended(save: Callable[[], Any]) -> str:
    try:
        with suppress(SystemExit):
            save()
        return "done"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
