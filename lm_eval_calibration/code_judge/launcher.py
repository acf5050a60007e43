"""Run one program apart from everything else, and report how it ended: ``python launcher.py FD``.

Three processes: the launcher, which keeps the time and reports; in the namespaces an init, at whose end the kernel ends
all that the program has started; and the program. Reads the job from standard input and writes the outcome to standard
output, both by `marshal` (both ends are the same Python). FD is the reading end of a pipe that closes when the caller
is gone; the program is then killed.

Of the package only the two files beside this one are imported, by path, and of the standard library only what costs
next to nothing (`json`, `signal`, `typing` and `contextlib` would double the time): this starts once for every program.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import select
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
confinement, execution = map(__import__, ("confinement", "execution"))  # no package is imported for them
del sys.path[0], sys.modules["confinement"], sys.modules["execution"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

LINUX, call = confinement.LINUX, confinement.call
SIGKILL = 9

# <linux/sched.h>, <linux/mount.h>, <linux/prctl.h>, <asm/unistd.h>
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000

LONGEST_REPORT = 400

LOOK = 0.05
"""Seconds after which the memory of all processes of a program is added up again."""


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount a file system or change a mount; raise OSError where the kernel refuses."""
    call("mount", source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode())


# --- the launcher ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the job on standard input."""
    job = marshal.loads(read_all(0))
    lifeline = int(sys.argv[1])
    token = os.urandom(16).hex()
    reports, channel = os.pipe()
    outcomes, status = os.pipe()
    if LINUX:
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    proc = os.open("/proc", os.O_RDONLY) if LINUX and os.path.isdir("/proc/self") else -1
    deadline = time.monotonic() + job["wall_seconds"]
    if job["namespaces"]:
        unshare()
    init = os.fork()
    if not init:
        keep_only(channel, status)
        be_init(job, channel, status, token)
    os.close(channel)
    os.close(status)
    ready, too_large = wait([outcomes, lifeline], deadline, job["memory"], proc)
    data = os.read(outcomes, 4096) if outcomes in ready else b""
    outcome: dict[str, Any] = marshal.loads(data) if data else {}  # nothing from an init that was killed
    kill_all(init, job["namespaces"])
    outcome["timed_out"], outcome["too_large"] = not ready and not too_large, too_large
    report = read_report(reports)
    outcome["passed"] = outcome.get("exit_code") == 0 and report == token
    outcome["report"] = "" if outcome["passed"] else report
    os.write(1, marshal.dumps(outcome))


def wait(descriptors: list[int], deadline: float, memory: int, proc: int) -> tuple[list[int], bool]:
    """Return the descriptors that can be read, none after the deadline; and whether there was too little memory."""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select(descriptors, [], [], min(left, LOOK))
        if ready:
            return ready, False
        if proc >= 0 and resident(memory, proc) > memory:
            return [], True
    return [], False


def resident(enough: int, proc: int) -> int:
    """Return the bytes of memory of this process's descendants; what they share once, where it makes a difference.

    Args:
        enough: below so many, no closer look is needed.
        proc: /proc as this process saw it at first; its root becomes the program's.
    """
    page, found = os.sysconf("SC_PAGESIZE"), descendants(proc)
    total = sum(page * int((read(f"{pid}/statm", proc).split() or ["0", "0"])[1]) for pid in found)
    if total <= enough:
        return total
    shares = [read(f"{pid}/smaps_rollup", proc).partition("\nPss:")[2].split() for pid in found]
    return sum(1024 * int(share[0]) for share in shares if share) or total


def descendants(proc: int) -> list[str]:
    """Return the ids of all processes below this one."""
    found: list[str] = []
    waiting = [str(os.getpid())]
    while waiting:
        process = waiting.pop()
        try:
            folder = os.open(f"{process}/task", os.O_RDONLY, dir_fd=proc)
        except OSError:
            continue
        lists = [read(f"{process}/task/{thread}/children", proc) for thread in os.listdir(folder)]
        os.close(folder)
        of_process = [child for children in lists for child in children.split()]
        found += of_process
        waiting += of_process
    return found


def read(path: str, folder: int) -> str:
    """Return what a file of a folder holds; nothing where it is gone."""
    try:
        with open(os.open(path, os.O_RDONLY, dir_fd=folder), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def unshare() -> None:
    """Leave the machine's processes, network, mounts and IPC: as root at once, else through a user namespace."""
    apart = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
    if os.geteuid() == 0:
        call("unshare", apart)
        return
    user, group = os.geteuid(), os.getegid()
    call("unshare", apart | CLONE_NEWUSER)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
            out.write(text)


def kill_all(init: int, namespaces: bool) -> None:
    """Kill the init, and with it its namespace; without one, everything that the program has left behind."""
    for kill in (os.killpg, os.kill):
        try:  # noqa: SIM105 - contextlib is dear
            kill(init, SIGKILL)
        except ProcessLookupError:
            pass
    try:
        while True:
            os.wait()
            for orphan in () if namespaces else children():  # of the subreaper that this process is; they die in turn
                os.kill(orphan, SIGKILL)
    except ChildProcessError:
        pass


def children() -> list[int]:
    """Return the ids of this process's children, dead ones included (none where there is no /proc)."""
    found = []
    for name in os.listdir("/proc") if LINUX else ():
        try:
            with open(f"/proc/{int(name)}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (ValueError, OSError):
            continue  # no process, or none any more
        if parent == os.getpid():
            found.append(int(name))
    return found


def read_all(descriptor: int) -> bytes:
    """Read to the end."""
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_report(descriptor: int) -> str:
    """Return what can be read now, up to the longest report."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, LONGEST_REPORT).decode(errors="replace")
    except BlockingIOError:
        return ""


def keep_only(*kept: int) -> None:
    """Close all descriptors but these; standard input, output and error become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    low = 3
    for descriptor in (*sorted(kept), 1 << 16):
        os.closerange(low, descriptor)
        low = descriptor + 1


# --- the init --------------------------------------------------------------------------------------------------------


def be_init(job: dict[str, Any], channel: int, status: int, token: str) -> NoReturn:
    """Build the program's root, start the program, wait for it and report how it ended."""
    os.setsid()
    os.umask(0o022)
    outcome: dict[str, Any] = {}
    try:
        if LINUX:
            call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        if job["namespaces"]:
            build_root(job["directory"], job["readable"], job["disk"])
            os.chdir("/tmp")
        else:
            os.chdir(job["directory"])
        program = os.fork()
        if not program:
            be_program(job, channel, status, token)
        os.close(channel)
        while True:
            pid, code, usage = os.wait3(0)
            if pid == program:
                break
        outcome = {"exit_code": os.waitstatus_to_exitcode(code), "cpu_seconds": usage.ru_utime + usage.ru_stime}
    except BaseException as error:  # the program could not be started
        outcome = {"failure": f"{type(error).__name__}: {error}"}
    os.write(status, marshal.dumps(outcome))
    os._exit(0)


def build_root(root: str, readable: list[str], disk: int) -> None:
    """Make the empty directory ``root`` the root: what a Python needs, read only, and a /tmp that vanishes at the end.

    Args:
        root: the directory.
        readable: files and directories that stay where they are; those that don't exist are left out.
        disk: bytes that /tmp may hold.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir(f"{root}/tmp")
    mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk},mode=777,nr_inodes=10000")
    for path in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", *readable):
        if not path.startswith("/dev/") and os.path.islink(path) and os.path.dirname(path) == "/":
            os.symlink(os.readlink(path), root + path)  # /lib is one, to usr/lib
        elif os.path.exists(path) and not os.path.exists(root + path):
            show(path, root + path)
    os.makedirs(f"{root}/proc", exist_ok=True)
    try:  # noqa: SIM105 - contextlib is dear
        mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    except OSError:
        pass  # a container that hides parts of its own forbids another; the program has none then
    mount("none", root, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    call("syscall", SYS_PIVOT_ROOT[os.uname().machine], b".", b".")
    call("umount2", b".", MNT_DETACH)


def show(path: str, target: str) -> None:
    """Show a file or directory at ``target``, read only."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    mount(path, target, None, MS_BIND | MS_REC)
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)  # struct mount_attr: attr_set first
    call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE, ctypes.byref(attributes), 32)


# --- the program -----------------------------------------------------------------------------------------------------


def be_program(job: dict[str, Any], channel: int, status: int, token: str) -> NoReturn:
    """Set limits and drop rights, run the program, and report through the channel that it came to its end."""
    try:
        confinement.confine(job)
    except BaseException as error:
        os.write(status, marshal.dumps({"failure": f"{type(error).__name__}: {error}"}))
        os._exit(1)
    os.close(status)
    report = execution.run(job["program"], job["path"], token)
    os.write(channel, report.encode(errors="replace")[:LONGEST_REPORT])
    os._exit(0 if report == token else 1)


if __name__ == "__main__":
    main()
