"""Processes of judged programs."""

import os
from collections.abc import Iterator
from pathlib import Path

from lm_eval_calibration.code_judge.launching import LAUNCHER


def launchers() -> list[str]:
    """Command lines of judged programs that run: they are forks of the launcher.

    Those of tests that run beside these, in another worker of pytest, are none of ours.
    """
    beside = {pid for pid in _pids() if pid != os.getpid() and _parent(pid) == os.getppid()}
    found = []
    for pid in _pids():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(LAUNCHER) in line and beside.isdisjoint(_ancestors(pid)):
            found.append(line)
    return found


def _pids() -> list[int]:
    return [int(process.name) for process in Path("/proc").glob("[0-9]*")]


def _parent(pid: int) -> int:
    """The parent's number; 0 for a process that has none, or has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _ancestors(pid: int) -> Iterator[int]:
    while (pid := _parent(pid)) > 1:
        yield pid
