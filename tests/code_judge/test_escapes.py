# ruff: noqa: E501 - a program is read best on one line
"""Ways around limits and checks: refused by the kernel, or judged wrong; told by the error that a call gives."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from code_judge.processes import launchers

from lm_eval_calibration.code_judge import Limits, confinement, execution, folders, run_programs, running
from lm_eval_calibration.code_judge.running import Isolation
from lm_eval_calibration.code_judge.users import own_user
from lm_eval_calibration.harness.code_eval import CodeEval

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what holds elsewhere is less")

LIMITS = Limits(cpu_seconds=5, wall_seconds=20.0, memory=512 << 20)

NAMESPACES = Isolation(True, os.geteuid() == 0)
ALONE = Isolation(False, False, filter=True, files=True)
"""The most that there is on a kernel without namespaces (and where Python itself is readable for its user alone)."""

BOTH = pytest.mark.parametrize("isolation", [NAMESPACES, ALONE], ids=["namespaces", "none"])


def judge(*programs: str | tuple[str, ...], isolation: Isolation, limits: Limits = LIMITS) -> list[running.Verdict]:
    if isolation.namespaces and not running.best_isolation().namespaces:
        pytest.skip("no namespaces here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "best_isolation", lambda: isolation)
        return run_programs(programs, limits=limits, progress=False)


def calling(number: int, *args: int) -> str:
    """A program that passes if a system call is refused with EPERM."""
    given = ", ".join(f"ctypes.c_long({arg})" for arg in (number, *args))
    return (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"found = libc.syscall({given}), ctypes.get_errno()\nassert found[0] == -1, found\nassert found[1] == 1, found\n"
    )


@BOTH
def test_each_call_of_the_list_is_refused(isolation: Isolation) -> None:
    column = 0 if confinement.MACHINE == "x86_64" else 1
    calls = "".join(calling(numbers[column], 0, 0, 0, 0, 0) for numbers in confinement.CALLS.values())
    (verdict,) = judge(calls, isolation=isolation)
    assert verdict.passed, verdict


@BOTH
def test_no_way_to_a_user_namespace(isolation: Isolation) -> None:
    column = 0 if confinement.MACHINE == "x86_64" else 1
    new_user = 0x10000000
    clone = calling(confinement.CLONE[column], new_user | 17, 0, 0, 0, 0)
    clone3 = calling(confinement.CLONE3[column], 0, 0).replace("== 1,", f"== {errno.ENOSYS},")
    verdicts = judge(clone, clone3, isolation=isolation)
    assert [verdict.reason for verdict in verdicts] == ["passed"] * 2, verdicts


@BOTH
def test_other_kinds_of_sockets(isolation: Isolation) -> None:
    known = (1, 2, 10) if isolation.namespaces else ()
    program = (
        "import socket\n"
        "for family in range(46):\n"
        f"    if family in {known}:\n"
        "        continue\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try:\n"
        "            socket.socket(family, kind)\n"
        "        except PermissionError:\n"
        "            continue\n"
        "        raise LookupError(family)\n"
        "a, b = socket.socketpair()\n"
        "a.send(b'x')\n"
        "assert b.recv(1) == b'x'\n"
    )
    (verdict,) = judge(program, isolation=isolation)
    assert verdict.passed, verdict


@BOTH
def test_what_honest_programs_do_still_works(isolation: Isolation) -> None:
    programs = [
        "import threading\nseen = []\nt = threading.Thread(target=seen.append, args=(1,))\nt.start()\nt.join()\nassert seen",
        "import os\npid = os.fork()\nif not pid:\n    os._exit(3)\nassert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3",
        "import subprocess\nassert subprocess.run(['/bin/true']).returncode == 0",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 3\nassert asyncio.run(f()) == 3",
        "import mmap\nm = mmap.mmap(-1, 1 << 20)\nm[:3] = b'abc'\nassert m[:3] == b'abc'",
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n    open(d + '/x', 'w').write('y')",
        "open('here', 'w').write('y')\nassert open('here').read() == 'y'",
        "import sqlite3\nassert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)",
    ]
    verdicts = judge(*programs, isolation=isolation)
    assert [verdict.reason for verdict in verdicts] == ["passed"] * len(programs), verdicts


HUNGRY = {
    "children": (
        "import os, time\n"
        "for _ in range(6):\n"
        "    if not os.fork():\n"
        "        kept = bytearray(b'x' * (150 << 20))\n"
        "        time.sleep(10)\n"
        "        os._exit(0)\n"
        "time.sleep(10)\n"
    ),
    "orphans of orphans": (
        "import os, time\n"
        "for _ in range(6):\n"
        "    if not os.fork():\n"
        "        os.setsid()\n"
        "        if not os.fork():\n"
        "            kept = bytearray(b'x' * (150 << 20))\n"
        "            time.sleep(10)\n"
        "        os._exit(0)\n"
        "time.sleep(10)\n"
    ),
}


@BOTH
@pytest.mark.parametrize("program", HUNGRY.values(), ids=HUNGRY)
def test_all_processes_together_have_one_limit(isolation: Isolation, program: str) -> None:
    start = time.monotonic()
    (verdict,) = judge(program, isolation=isolation)
    assert (verdict.passed, verdict.reason) == (False, "memory")
    assert time.monotonic() - start < 9


@BOTH
def test_memory_that_processes_share_counts_once(isolation: Isolation) -> None:
    program = (
        "import os, time\nkept = bytearray(b'x' * (200 << 20))\n"
        "for _ in range(5):\n    if not os.fork():\n        time.sleep(1)\n        os._exit(0)\ntime.sleep(0.7)\n"
    )
    (verdict,) = judge(program, isolation=isolation)
    assert verdict.passed, verdict


EQUAL_TO_ALL = {
    "an object": "class A:\n    def __eq__(self, other):\n        return True\ndef f(): return A()",
    "that is truthy": "class A:\n    def __eq__(self, other):\n        return 1\ndef f(): return A()",
    "a number": "class A(int):\n    __eq__ = lambda self, other: True\n    __hash__ = int.__hash__\ndef f(): return A(3)",
    "of its kind": "class A:\n    def __eq__(self, other):\n        return isinstance(other, int)\ndef f(): return A()",
    "a list": "class A(list):\n    __eq__ = lambda self, other: True\ndef f(): return A()",
    "by another's": "import operator\nclass A:\n    __eq__ = operator.methodcaller\ndef f(): return A()",
    "of the library": "from unittest.mock import ANY\ndef f(): return ANY",
}


@pytest.mark.parametrize("answer", EQUAL_TO_ALL.values(), ids=EQUAL_TO_ALL)
@pytest.mark.parametrize("check", ["assert f() == 5", "assert [f()] == [5]", "assert True and (f(), 1) == (5, 1)"])
def test_what_equals_everything_equals_nothing(answer: str, check: str) -> None:
    in_function = "def check(candidate):\n    " + check.replace("f()", "candidate()") + "\ncheck(f)"
    programs = [f"{answer}\n{check}", (answer, check), (answer, in_function)]
    verdicts = run_programs(programs, limits=LIMITS, progress=False)
    assert not [verdict for verdict in verdicts if verdict.passed]


HONEST = [
    "from collections import namedtuple\nP = namedtuple('P', 'x y')\nassert P(1, 2) == (1, 2)",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nassert P(1) == P(1)\nassert not P(1) == P(2)",
    "class V:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == getattr(o, 'x', o)\nassert V(2) == 2",
    "from fractions import Fraction\nassert Fraction(1, 2) == 0.5\nassert [Fraction(1, 2)] == [0.5]",
    "from collections import Counter, OrderedDict\nassert Counter('aab') == {'a': 2, 'b': 1}",
    "assert {1: [2, {3}]} == {1: [2, {3}]}\nassert None == None\nassert 'a' == 'a' and 1 == 1.0\nassert 1 == 1 == 1",
    "assert float('inf') == float('inf')\nx = [1]\nx.append(x)\nassert x == x",
    "from decimal import Decimal\nassert Decimal('1') == 1",
    "class E:\n    def __eq__(s, o): raise ValueError\ntry:\n    assert E() == 1\nexcept ValueError:\n    pass",
    "assert (1 == 1), 'never'\ntry:\n    assert 1 == 2, 'said'\nexcept AssertionError as e:\n    assert str(e) == 'said'",
    "import math\nassert math.isclose(1, 1 + 1e-12) and all([abs(-1) == 1])",
]


@pytest.mark.parametrize("program", HONEST)
def test_equality_is_what_it_is(program: str) -> None:
    (verdict,) = run_programs([program], limits=LIMITS, progress=False)
    assert verdict.passed, verdict


PATCHES = {
    "isclose": (
        "import math\nmath.isclose = lambda *a, **k: True\ndef f(): return 0",
        "import math\nassert math.isclose(f(), 5)",
    ),
    "imported": ("import math\nmath.isclose = lambda *a, **k: True", "from math import isclose\nassert isclose(0, 5)"),
    "abs": ("import builtins\nbuiltins.abs = lambda x: 0", "assert abs(5) < 1e-6"),
    "all": ("import builtins\nbuiltins.all = lambda x: True", "assert all([0])"),
    "another math": (
        "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=lambda *a, **k: True)",
        "import math\nassert math.isclose(0, 5)",
    ),
}


@pytest.mark.parametrize(("answer", "check"), PATCHES.values(), ids=PATCHES)
def test_patched_functions_are_put_back(answer: str, check: str) -> None:
    (verdict,) = run_programs([(answer, check)], limits=LIMITS, progress=False)
    assert verdict.reason == "wrong"


def test_a_patched_isclose_is_put_back_in_one_text_too() -> None:
    (verdict,) = run_programs(["\n".join(PATCHES["isclose"])], limits=LIMITS, progress=False)
    assert verdict.reason == "wrong"


@pytest.mark.parametrize("end", ["if 0: \\", "0 and \\", "'''", "x = (", "\\", "#\\", "lambda: \\"])
def test_an_answer_swallows_nothing_of_its_check(end: str) -> None:
    passed, _ = CodeEval().compute(["assert False"], [[f"def f():\n    return 1\n{end}"]], k=[1])
    assert passed == {"pass@1": 0.0}


def test_future_imports_of_the_answer_hold_in_the_check() -> None:
    check = "def g(x: Missing): pass\nassert g.__annotations__ == {'x': 'Missing'}"
    verdicts = run_programs([("from __future__ import annotations", check), ("", check)], progress=False)
    assert [verdict.passed for verdict in verdicts] == [True, False]


def test_without_namespaces_files_and_processes_of_others_are_out_of_reach(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    tmp_path.chmod(0o777)
    secret.chmod(0o666)
    me = os.getpid()
    program = (
        "import os\n"
        f"for call in (lambda: open({str(secret)!r}), lambda: open({str(tmp_path / 'x')!r}, 'w'), lambda: os.kill({me}, 0),\n"
        f"             lambda: open('/proc/{me}/environ'), lambda: os.listdir('/home'), lambda: open('/etc/passwd')):\n"
        "    try:\n        call()\n    except PermissionError:\n        continue\n    raise LookupError\n"
    )
    (verdict,) = judge(program, isolation=ALONE)
    assert verdict.passed, verdict
    assert secret.read_text() == "secret"


def test_without_namespaces_folders_may_be_nested_as_deep_as_one_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = "import os\nfor i in range(9000):\n    os.mkdir('d')\n    os.chdir('d')\nopen('x', 'w').close()\nos.chmod('.', 0)"
    verdicts = judge(program, "assert True", isolation=Isolation(False, False))
    assert [verdict.reason for verdict in verdicts] == ["passed", "passed"]
    assert list(tmp_path.iterdir()) == []


def test_two_calls_have_users_of_their_own() -> None:
    with own_user() as first, own_user() as second:
        assert first != second
    bomb = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n"
    threaded = (
        "import threading, time\nts = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(10)]\n"
        "for t in ts: t.start()\nfor t in ts: t.join()\n"
    )
    quick = Limits(cpu_seconds=3, wall_seconds=4.0)
    with ThreadPoolExecutor(2) as pool:
        bombs = pool.submit(run_programs, [bomb], limits=quick, progress=False)
        honest = pool.submit(run_programs, [threaded] * 8, limits=Limits(), workers=1, progress=False)
        assert [verdict.reason for verdict in honest.result()] == ["passed"] * 8
        assert not bombs.result()[0].passed


CALLER = """
import signal
from lm_eval_calibration.code_judge import run_programs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
print("ready", flush=True)
run_programs(["import time; time.sleep(25)"] * 4, workers=2, progress=False)
"""


def caller(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", CALLER], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def wait_for(condition: object, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)
    return bool(condition())  # type: ignore[operator]


def test_ctrl_c_kills_programs_at_once(tmp_path: Path) -> None:
    with caller(tmp_path) as process:
        assert wait_for(lambda: len(list(tmp_path.glob("judged-*"))) == 2, 30)
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        took = time.monotonic() - start
    assert took < 5
    assert wait_for(lambda: launchers() == [])
    assert list(tmp_path.iterdir()) == []


def test_folders_of_a_killed_caller_are_swept_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caller(tmp_path) as process:
        assert wait_for(lambda: len(list(tmp_path.glob("judged-*"))) == 2, 30)
        process.kill()
    assert wait_for(lambda: launchers() == [])
    assert len(list(tmp_path.glob("judged-*"))) == 2
    mine = tmp_path / f"judged-{os.getpid()}-x"
    mine.mkdir()
    (tmp_path / "judged-by-a-user").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_programs(["pass"], progress=False)[0].passed
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, "judged-by-a-user"}


def test_a_folder_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    (folder / "a" / "link").symlink_to(tmp_path)
    (folder / "a" / "b").chmod(0)
    (tmp_path / "kept").write_text("x")
    folders.remove(str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_the_launcher_loads_is_small() -> None:
    assert execution.BUILT_IN is type(int.__eq__)
    code = "import sys; import confinement, execution; print(len(sys.modules))"
    folder = str(Path(execution.__file__).parent)
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 60
