"""Run programs, each in a process of its own, as far apart from the machine as its kernel allows."""

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.code_judge.folders import sweep, temporary_folder
from lm_eval_calibration.code_judge.launching import Running, launch, python_path, readable_paths
from lm_eval_calibration.code_judge.users import own_user
from lm_eval_calibration.errors import UserError

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

Program = str | tuple[str, ...]
"""A Python source, or several that run one after the other in one module."""

UNKNOWN_PROCESSES = 1000
"""How many processes a user is taken to have where there is no /proc to look at."""

PROBE = "import ctypes, decimal, hashlib, json, math, re, tempfile\nwith tempfile.TemporaryFile() as file:\n    pass"
"""A program that must pass with any isolation that is used."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        cpu_seconds: processor time, whole seconds; a program that computes for longer gets the verdict ``timeout``.
        wall_seconds: time on the clock, for programs that wait; large, so that a busy machine changes no verdict.
        memory: bytes of address space of each process, and of memory in use by all of a program's together (Linux).
        file_size: bytes of a file; all files together are limited to four times as much where they are in memory.
        processes: processes and threads at a time.
        open_files: file descriptors.
    """

    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    memory: int = 2 << 30
    file_size: int = 16 << 20
    processes: int = 16
    open_files: int = 64


class Verdict(NamedTuple):
    """The outcome of a program.

    Attributes:
        passed: it ran to its end.
        reason: ``passed``, or ``wrong`` (an assertion failed), ``error`` (another exception), ``exit`` (it left
            before its end), ``timeout``, ``memory``, ``crash`` (killed by a signal).
        detail: the exception or the signal; empty for others. May hold text that a program wrote: don't trust it.
    """

    passed: bool
    reason: str
    detail: str = ""


class Isolation(NamedTuple):
    """How programs are kept apart.

    Attributes:
        namespaces: no network, own processes, own root directory with nothing writable but /tmp.
        user: whether they run as another user (needs root).
        filter: whether system calls through which limits are escaped are refused, and the network where it is the
            machine's own (seccomp).
        files: whether they see and change no files but those that a Python needs, and signal no other processes, where
            these are the machine's own (Landlock).
    """

    namespaces: bool
    user: bool
    filter: bool = True
    files: bool = False

    @property
    def is_linux_only(self) -> bool:
        """Whether some of it is Linux's."""
        return self.namespaces or self.filter or self.files


def run_programs(
    programs: Sequence[Program],
    *,
    limits: Limits = Limits(),
    workers: int | None = None,
    progress: bool = True,
) -> list[Verdict]:
    """Run each program in a process of its own; return a verdict for each, in the programs' order.

    Args:
        programs: Python sources, or several that run one after the other in one module. A program passes if it runs to
            its end. Give the code under test and its check as two: then the first can't change how the second is read,
            and what it has changed in Python's own modules is put back before.
        limits: of each program.
        workers: programs at a time; by default one on each core that this process may use.
        progress: show a bar.

    Raises:
        UserError: on Windows; or where programs can't be started, with the system's reason.
    """
    if not programs:
        return []
    from tqdm import tqdm

    isolation = best_isolation()
    sweep()
    running = Running()
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [None] * (os.cpu_count() or 1)
    n_workers = min(workers or len(cores), len(programs))
    slots = deque(range(n_workers))  # one is free for each worker

    def run(program: Program) -> Verdict:
        slot = slots.popleft()
        try:
            return _verdict(_outcome(program, limits, isolation, running, cores[slot % len(cores)]), limits)
        finally:
            slots.append(slot)

    with ThreadPoolExecutor(n_workers) as pool:
        try:
            verdicts = pool.map(run, programs)
            return list(tqdm(verdicts, total=len(programs), desc="Running programs", disable=not progress))
        except BaseException:  # Ctrl-C, say
            running.stop()
            pool.shutdown(cancel_futures=True)
            raise


@cache
def best_isolation() -> Isolation:
    """Find the best isolation on this machine by trying; a warning names what is missing.

    Raises:
        UserError: as :func:`run_programs`.
    """
    if os.name != "posix":
        raise UserError("programs can't be run on Windows, which has no limits for a process: use Linux or WSL 2")
    failures: list[str] = []
    is_root = os.geteuid() == 0
    for isolation in _isolations(is_root):
        if isolation.is_linux_only and sys.platform != "linux":
            continue
        outcome = _outcome(PROBE, Limits(), isolation)
        if outcome.get("passed"):
            if missing := _missing(isolation, is_root):
                logger.warning("Programs are run without %s (%s).", missing, failures[0] if failures else sys.platform)
            return isolation
        failures.append(outcome.get("failure") or outcome.get("report") or str(outcome))
    raise UserError(f"programs can't be isolated on this machine: {'; '.join(dict.fromkeys(failures))}")


def _isolations(is_root: bool) -> Iterator[Isolation]:
    """Yield ways of keeping programs apart, the best first."""
    yield from (Isolation(True, is_root, has_filter) for has_filter in (True, False))
    for user in (True, False) if is_root else (False,):
        yield from (
            Isolation(False, user, *rest) for rest in ((True, True), (True, False), (False, True), (False, False))
        )


def _missing(isolation: Isolation, is_root: bool) -> str:
    apart = isolation.namespaces
    missing = {
        "process numbers of their own: before Linux 6.12 they can end your processes": not apart,
        "files of their own: they can read what you can, and end your processes": not (apart or isolation.files),
        "a limit on their network: they can send what they know": not (apart or isolation.filter),
        "a filter of system calls: they can get around the limit on memory": not isolation.filter,
        "a limit on memory": sys.platform != "linux",
        "a limit on processes, and with root's rights": is_root and not isolation.user,
    }
    return "; ".join(what for what, is_missing in missing.items() if is_missing)


def _verdict(outcome: dict[str, Any], limits: Limits) -> Verdict:
    if "failure" in outcome:
        raise UserError(f"a program could not be started: {outcome['failure']}")
    report, code = outcome.get("report", ""), outcome.get("exit_code")
    if outcome["passed"]:
        return Verdict(True, "passed")
    if outcome["too_large"]:
        return Verdict(False, "memory", "all its processes together")
    if outcome["timed_out"] or code == -signal.SIGXCPU or outcome.get("cpu_seconds", 0) >= limits.cpu_seconds:
        return Verdict(False, "timeout")
    if code is None or code < 0:
        return Verdict(False, "crash", "" if code is None else f"signal {-code}")
    kind = report.partition(":")[0]
    if not report or kind == "SystemExit":
        return Verdict(False, "exit", report)
    return Verdict(False, {"AssertionError": "wrong", "MemoryError": "memory"}.get(kind, "error"), report)


def _outcome(
    program: Program,
    limits: Limits,
    isolation: Isolation,
    running: Running | None = None,
    core: int | None = None,
) -> dict[str, Any]:
    """Return the outcome of one program as the launcher reports it."""
    with temporary_folder() as directory, own_user() if isolation.user else nullcontext() as user:
        if user is not None and not isolation.namespaces:
            os.chown(directory, user, user)
        job = {
            **asdict(limits),
            "processes": limits.processes + _other_threads(isolation),
            "disk": 4 * limits.file_size,
            "program": [program] if isinstance(program, str) else list(program),
            "directory": directory,
            "readable": readable_paths(),
            "path": python_path(),
            **isolation._asdict(),
            "user": user,
            "cpu": core,
        }
        return launch(job, running or Running())


def _other_threads(isolation: Isolation) -> int:
    """Count the threads of the same user, which the limit on processes counts beside the program's."""
    if isolation.namespaces or isolation.user:
        return 0
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == os.geteuid():
                count += len(os.listdir(process / "task"))
    return count or UNKNOWN_PROCESSES
