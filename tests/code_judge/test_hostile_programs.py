"""Programs that mean harm are judged wrong within their limits and leave nothing behind."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from code_judge.processes import launchers

from lm_eval_calibration.code_judge import Limits, run_programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what holds elsewhere is less")

QUICK = Limits(cpu_seconds=1, wall_seconds=3.0, memory=512 << 20)

TREE = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
DAEMON = (
    "import os, time\n"
    "if not os.fork():\n"
    "    os.setsid()\n"
    "    if not os.fork():\n"
    "        time.sleep(1000)\n"
    "    os._exit(0)\n"
    "time.sleep(0.2)\n"
)

# What they do, and the reasons that a verdict may give.
HOSTILE = {
    "endless loop": ("while True: pass", "timeout"),
    "endless sleep": ("import time; time.sleep(1000)", "timeout"),
    "ignores its alarm": (
        "import signal\nfor n in (2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
    ),
    "fork bomb": (TREE, "timeout error"),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
        "error",
    ),
    "10 GB at once": ("x = bytearray(10 << 30)", "memory"),
    "memory little by little": ("x = []\nwhile True: x.append(bytes(1 << 26))", "memory"),
    "huge integer": ("x = 9 ** 9 ** 9 ** 9", "timeout memory"),
    "huge file": ("with open('big', 'wb') as f:\n    for _ in range(1000): f.write(bytes(1 << 20))", "error"),
    "many files": ("for i in range(10**6): open(f'{i}', 'w').close()", "error timeout"),
    "many descriptors": ("kept = []\nwhile True: kept.append(open('/dev/null'))", "error"),
    "writes into the installation": ("import os\nopen(os.__file__, 'a').write('#')", "error"),
    "removes everything": (
        "import shutil\nshutil.rmtree('/', ignore_errors=True)\nassert False",
        "wrong error timeout",
    ),
    "deletes its directory": ("import os\nos.rmdir(os.getcwd())\nopen('x', 'w')", "error"),
    "leaves early, content": ("import sys; sys.exit(0)", "exit"),
    "leaves at once, content": ("import os; os._exit(0)", "exit"),
    "raises SystemExit": ("raise SystemExit", "exit"),
    "says that it passed": ("print('passed'); import sys; sys.stderr.write('passed'); assert False", "wrong"),
    "writes passed everywhere": (
        "import os\nfor n in range(64):\n    try:\n        os.write(n, b'passed')\n    except OSError:\n        pass\n"
        "os._exit(0)",
        "exit error wrong",
    ),
    "patches AssertionError": (
        "import builtins\nbuiltins.AssertionError = SystemExit\nbuiltins.Exception = int\nassert False",
        "wrong",
    ),
    "patches exit": ("import os\nos._exit = lambda code: None\nassert False", "wrong exit"),
    "an error that loops": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "timeout",
    ),
    "an error that lies": ("class AssertionError(BaseException): pass\nraise AssertionError('x')", "wrong error"),
    "loops when it is deleted": ("class A:\n    def __del__(self):\n        while True: pass\nA()", "timeout"),
    "loops at exit": ("import atexit\n@atexit.register\ndef f():\n    while True: pass\nassert False", "wrong"),
    "floods its output": ("while True: print('x' * 10**6)", "timeout"),
    "reads standard input": ("input()", "error"),
    "recurses": ("def f(): f()\nf()", "error"),
    "recurses without limit": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", "crash memory timeout"),
    "crashes the interpreter": ("import ctypes; ctypes.string_at(0)", "crash"),
    "aborts": ("import os; os.abort()", "crash"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "crash"),
    "kills whom it can": ("import os\nos.kill(-1, 9)\nassert False", "crash error wrong"),
    "kills its parents": (
        "import os\nfor pid in {1, os.getppid()}:\n    for n in (9, 15, 19):\n"
        "        try:\n            os.kill(pid, n)\n        except OSError:\n            pass\nassert False",
        "wrong",
    ),
    "daemon that outlives it": (DAEMON + "assert False", "wrong"),
    "daemon, and leaves": (DAEMON + "os._exit(0)", "exit"),
    "child that runs on": ("import os\nif os.fork(): os._exit(0)", "exit"),
    "stops itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    "closes all descriptors": ("import os; os.closerange(0, 10000)", "exit error"),
    "reads the environment": ("import os\nassert not os.environ\nraise LookupError", "error"),
    "missing module": ("import a_module_that_is_not_there", "error"),
    "no Python": ("this is no program", "error"),
    "null bytes": ("x = 1\0", "error"),
    "lone surrogate": ("x = '\ud800'", "error"),
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
        "error",
    ),
}


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that no process and no file is there afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert launchers() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_hostile_programs_are_judged_wrong_and_leave_nothing() -> None:
    verdicts = run_programs([program for program, _ in HOSTILE.values()], limits=QUICK, progress=False)
    others = {
        name: verdict
        for (name, (_, reasons)), verdict in zip(HOSTILE.items(), verdicts, strict=True)
        if verdict.passed or verdict.reason not in reasons.split()
    }
    assert others == {}


@pytest.mark.usefixtures("nothing_left")
def test_no_file_is_written_outside(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    places = [str(open_to_all), str(tmp_path), "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), "/"]
    program = "\n".join(
        f"try:\n    open({place!r} + '/judged_left_this', 'w').write('x')\nexcept OSError:\n    pass"
        for place in places
    )
    run_programs([program], limits=QUICK, progress=False)
    assert [place for place in places if os.path.exists(f"{place}/judged_left_this")] == []
    open_to_all.rmdir()


def test_no_server_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)"
        verdict = run_programs([connect], limits=QUICK, progress=False)[0]
    assert not verdict.passed
    assert verdict.reason == "error"


def test_secrets_of_this_process_are_out_of_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_secret", encoding="utf-8")
    monkeypatch.setenv("A_SECRET", "hf_secret")
    program = (
        "import os, pathlib\n"
        f"assert not os.path.exists({str(secret)!r})\n"
        "assert 'A_SECRET' not in os.environ\n"
        "for file in pathlib.Path('/proc').glob('[0-9]*/environ'):\n"
        "    try:\n"
        "        assert b'A_SECRET' not in file.read_bytes()\n"
        "    except OSError:\n"
        "        pass\n"
        "assert [p for p in os.listdir('/proc') if p.isdigit()] == ['1', str(os.getpid())]\n"
    )
    verdict = run_programs([program], limits=QUICK, progress=False)[0]
    assert verdict.passed, verdict


def test_one_program_can_not_see_another() -> None:
    writes = "open('/tmp/message', 'w').write('x')\nimport time\ntime.sleep(0.5)"
    reads = "import os, time\nfor _ in range(10):\n    time.sleep(0.05)\n    assert not os.path.exists('/tmp/message')"
    verdicts = run_programs([writes, reads], workers=2, limits=QUICK, progress=False)
    assert [verdict.reason for verdict in verdicts] == ["passed", "passed"]
