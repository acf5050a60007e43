"""Run programs, each in a process of its own, as far apart from the machine as its kernel allows."""

import logging
import marshal
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_calibration.errors import UserError

logger = logging.getLogger("lm_eval.calibration")  # a child of the harness's: same handler, same level

LAUNCHER = Path(__file__).with_name("launcher.py")

READABLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix", "/etc/ld.so.cache", "/etc/localtime")
"""What a Python may need beside its own directories."""

FIRST_USER, N_USERS = 60_000, 5000
"""As root, programs run as one of these users: numbers that no account has by default."""

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
        memory: bytes of address space of each process (Linux).
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
    """

    namespaces: bool
    user: bool


def run_programs(
    programs: Sequence[str],
    *,
    limits: Limits = Limits(),
    workers: int | None = None,
    progress: bool = True,
) -> list[Verdict]:
    """Run each program in a process of its own; return a verdict for each, in the programs' order.

    Args:
        programs: Python sources. A program passes if it runs to its end: append the check to the code under test.
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
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [None] * (os.cpu_count() or 1)
    n_workers = min(workers or len(cores), len(programs))
    slots = deque(range(n_workers))  # one is free for each worker

    def run(program: str) -> Verdict:
        slot = slots.popleft()
        try:
            return _verdict(_outcome(program, limits, isolation, slot, cores[slot % len(cores)]), limits)
        finally:
            slots.append(slot)

    with ThreadPoolExecutor(n_workers) as pool:
        try:
            verdicts = pool.map(run, programs)
            return list(tqdm(verdicts, total=len(programs), desc="Running programs", disable=not progress))
        except BaseException:
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
    for isolation in (Isolation(True, is_root), Isolation(False, is_root), Isolation(False, False)):
        if isolation.namespaces and sys.platform != "linux":
            continue
        outcome = _outcome(PROBE, Limits(), isolation)
        if outcome.get("passed"):
            if missing := _missing(isolation, is_root):
                logger.warning("Programs are run without %s (%s).", missing, failures[0] if failures else sys.platform)
            return isolation
        failures.append(outcome.get("failure") or outcome.get("report") or str(outcome))
    raise UserError(f"programs can't be isolated on this machine: {'; '.join(dict.fromkeys(failures))}")


def _missing(isolation: Isolation, is_root: bool) -> str:
    namespaces = "a network, file system and process numbers of their own: they can read and send what you can"
    missing = {
        namespaces: not isolation.namespaces,
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
    if outcome["timed_out"] or code == -signal.SIGXCPU or outcome.get("cpu_seconds", 0) >= limits.cpu_seconds:
        return Verdict(False, "timeout")
    if code is None or code < 0:
        return Verdict(False, "crash", "" if code is None else f"signal {-code}")
    kind = report.partition(":")[0]
    if not report or kind == "SystemExit":
        return Verdict(False, "exit", report)
    return Verdict(False, {"AssertionError": "wrong", "MemoryError": "memory"}.get(kind, "error"), report)


def _outcome(
    program: str, limits: Limits, isolation: Isolation, slot: int = 0, core: int | None = None
) -> dict[str, Any]:
    """Return the outcome of one program as the launcher reports it."""
    # The limit on processes counts those of a user: each program that runs at a time has a user of its own.
    user = FIRST_USER + (97 * os.getpid() + slot) % N_USERS if isolation.user else None
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as directory:
        if user is not None and not isolation.namespaces:
            os.chown(directory, user, user)
        job = {
            **asdict(limits),
            "processes": limits.processes + _other_threads(isolation),
            "disk": 4 * limits.file_size,
            "program": program,
            "directory": directory,
            "readable": _readable(),
            "path": _path(),
            "namespaces": isolation.namespaces,
            "user": user,
            "cpu": core,
        }
        return _launch(job)


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


def _launch(job: dict[str, Any]) -> dict[str, Any]:
    lifeline, ours = os.pipe()
    try:
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
    finally:
        os.close(lifeline)
        os.close(ours)
    if launcher.returncode or not out:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return {"failure": last or f"the launcher ended with {launcher.returncode}"}
    outcome: dict[str, Any] = marshal.loads(out)
    return outcome


@cache
def _path() -> list[str]:
    """Return where programs find modules: this Python's standard library and its installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_path(name) for name in names]
    dynamic = [path for path in sys.path if path.endswith("lib-dynload")]
    return list(dict.fromkeys([*paths[:2], *dynamic, *paths[2:]]))


@cache
def _readable() -> list[str]:
    """Return the files and directories that a program may read."""
    own = [sys.base_prefix, sys.base_exec_prefix, *_path()]
    paths = [*READABLE, *own, *map(os.path.realpath, own)]
    return sorted(set(paths), key=len)  # parents first
