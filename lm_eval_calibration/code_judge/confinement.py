"""What a program may ask of the kernel: limits, system calls, files. Part of the launcher, which imports it by path.

The system-call filter is a list of what no honest program needs and through which limits were escaped. It is written
out here rather than by a binding of libseccomp: that needs a library of the system's, and costs more than the filter.
"""

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINUX = sys.platform == "linux"
MACHINE = os.uname().machine if os.name == "posix" else ""

libc = ctypes.CDLL(None, use_errno=True)

# <linux/prctl.h>, <linux/seccomp.h>, <linux/audit.h>, <linux/sched.h>
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, DENY, UNKNOWN, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
X32 = 0x40000000  # the first number of x86_64's other table
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10

# <asm/unistd.h>: x86_64, and the table that newer architectures share
CALLS = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""System calls that are refused: memory that no limit counts, messages to other programs, other views of the system."""

CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)

SYS_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "ppc64le": 184, "s390x": 185}

# <linux/landlock.h>: numbers are the same everywhere
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}  # by version; 0xFFFF from the fifth on
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def call(name: str, *args: "Any") -> int:
    """Call a function of the C library; raise OSError if it fails."""
    result: int = getattr(libc, name)(*args)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def confine(job: "dict[str, Any]") -> None:
    """Set the limits and drop all rights of this process."""
    if job["cpu"] is not None:
        os.sched_setaffinity(0, {job["cpu"]})
    limit = resource.setrlimit
    limit(resource.RLIMIT_CPU, (job["cpu_seconds"], job["cpu_seconds"] + 1))
    limit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    limit(resource.RLIMIT_NOFILE, (job["open_files"], job["open_files"]))
    limit(resource.RLIMIT_CORE, (0, 0))
    if job["processes"] is not None:
        limit(resource.RLIMIT_NPROC, (job["processes"], job["processes"]))
    if LINUX:
        limit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
        if job["user"] is not None:
            os.setgroups([])
            os.setresgid(job["user"], job["user"], job["user"])
            os.setresuid(job["user"], job["user"], job["user"])
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        drop_capabilities()
        if job["files"]:
            show_only(job["readable"], job["directory"])
        if job["filter"]:
            filter_calls(job["namespaces"])


def drop_capabilities() -> None:
    """Drop all capabilities: with NO_NEW_PRIVS they don't come back."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    none = (ctypes.c_uint32 * 6)()
    call("syscall", SYS_CAPSET[MACHINE], ctypes.byref(header), ctypes.byref(none))


def filter_calls(has_own_network: bool) -> None:
    """Refuse system calls with EPERM; sockets of other kinds, too, and all of them where the network is the machine's.

    (Pairs of connected sockets are another call.)
    """
    column = 0 if MACHINE == "x86_64" else 1
    load, equal, not_below, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06

    def code(*steps: "tuple[int, int, int, int]") -> bytes:
        return b"".join(struct.pack("=HBBI", *step) for step in steps)

    def of(number: int, *steps: "tuple[int, int, int, int]") -> bytes:
        return code((equal, 0, len(steps), number), *steps)

    program = code((load, 0, 0, 4), (equal, 1, 0, ARCHITECTURES[MACHINE]), (end, 0, 0, KILL), (load, 0, 0, 0))
    if column == 0:
        program += code((not_below, 0, 1, X32), (end, 0, 0, UNKNOWN))
    program += b"".join(of(numbers[column], (end, 0, 0, DENY)) for numbers in CALLS.values())
    program += of(CLONE3[column], (end, 0, 0, UNKNOWN))  # its flags are out of a filter's sight; libc then uses clone
    new = (any_bit, 0, 1, NEW_NAMESPACES)
    program += of(CLONE[column], (load, 0, 0, 16), new, (end, 0, 0, DENY), (end, 0, 0, ALLOW))
    families = (AF_UNIX, AF_INET, AF_INET6) if has_own_network else ()
    known = [(equal, len(families) - i, 0, family) for i, family in enumerate(families)]
    program += of(SOCKET[column], (load, 0, 0, 16), *known, (end, 0, 0, DENY), (end, 0, 0, ALLOW))
    program += code((end, 0, 0, ALLOW))
    buffer = ctypes.create_string_buffer(program, len(program))
    whole = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(whole), 0, 0)


def show_only(readable: "list[str]", directory: str) -> None:
    """Let only these files be read, and only those in the directory be written; signal no other process (Landlock)."""
    version = call("syscall", CREATE_RULESET, None, 0, 1)
    rights = RIGHTS.get(version, 0xFFFF)
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    attributes = struct.pack("=QQQ", rights, network, scope)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = call("syscall", CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    allow(rules, directory, rights)
    for path in readable:
        allow(rules, path, EXECUTE | READ_FILE | READ_DIR)
    for path in DEVICES:
        allow(rules, path, (READ_FILE | WRITE_FILE | TRUNCATE | IOCTL) & rights)
    call("syscall", RESTRICT_SELF, rules, 0)
    os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    """Add a rule for a file or directory; none where it is not there."""
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= EXECUTE | READ_FILE | WRITE_FILE | TRUNCATE | IOCTL
    call("syscall", ADD_RULE, rules, 1, ctypes.c_char_p(struct.pack("=Qi", rights, beneath)), 0)
    os.close(beneath)
