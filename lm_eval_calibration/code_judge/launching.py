"""Starts the launcher of a program, and ends it."""

import marshal
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from lm_eval_calibration.code_judge import confinement, execution

LAUNCHER = Path(__file__).with_name("launcher.py")

assert confinement.__file__
assert execution.__file__  # imported here, so that they are compiled once and not for every program

READABLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix", "/etc/ld.so.cache", "/etc/localtime")
"""What a Python may need beside its own directories."""


class Running:
    """The programs that run now, each by the pipe at whose end its launcher kills it."""

    def __init__(self) -> None:
        self._pipes: set[int] = set()
        self._is_stopped = False
        self._lock = Lock()

    @contextmanager
    def lifeline(self) -> Iterator[int]:
        """Open a pipe for a launcher and give it the reading end."""
        theirs, ours = os.pipe()
        with self._lock:
            if self._is_stopped:
                self._close(theirs, ours)
                raise CancelledError
            self._pipes.add(ours)
        try:
            yield theirs
        finally:
            os.close(theirs)
            self._end(ours)

    def stop(self) -> None:
        """Kill all programs, and let no other start."""
        with self._lock:
            self._is_stopped = True
            pipes = list(self._pipes)
        for pipe in pipes:
            self._end(pipe)

    def _end(self, pipe: int) -> None:
        with self._lock:
            if pipe in self._pipes:
                self._pipes.remove(pipe)
                os.close(pipe)

    @staticmethod
    def _close(*descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)


def launch(job: dict[str, Any], running: Running) -> dict[str, Any]:
    """Run a job and return its outcome; under ``failure`` what kept it from running."""
    with running.lifeline() as lifeline:
        launcher = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-B", str(LAUNCHER), str(lifeline)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0"},  # sets in the same order each time
            pass_fds=[lifeline],
            start_new_session=True,
        )
        with launcher:
            try:
                out, errors = launcher.communicate(marshal.dumps(job), timeout=job["wall_seconds"] + 60)
            except BaseException:
                launcher.kill()
                raise
    if launcher.returncode or not out:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return {"failure": last or f"the launcher ended with {launcher.returncode}"}
    outcome: dict[str, Any] = marshal.loads(out)
    return outcome


@cache
def python_path() -> list[str]:
    """Return where programs find modules: this Python's standard library and its installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_path(name) for name in names]
    dynamic = [path for path in sys.path if path.endswith("lib-dynload")]
    return list(dict.fromkeys([*paths[:2], *dynamic, *paths[2:]]))


@cache
def readable_paths() -> list[str]:
    """Return the files and directories that a program may read."""
    own = [sys.base_prefix, sys.base_exec_prefix, *python_path()]
    paths = [*READABLE, *own, *map(os.path.realpath, own)]
    return sorted(set(paths), key=len)  # parents first
