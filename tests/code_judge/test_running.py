"""Verdicts: who passes, why others don't, in what order."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from code_judge.processes import launchers

from lm_eval_calibration.code_judge import Limits, Verdict, run_programs, running
from lm_eval_calibration.code_judge.running import Isolation, best_isolation
from lm_eval_calibration.errors import UserError

SLOW = "total = 0\nfor i in range(2 * 10**6): total += i\nassert total == 1999999000000"


def judge(*programs: str, **options: Any) -> list[Verdict]:
    return run_programs(programs, progress=False, **options)


def test_verdicts_are_in_the_programs_order() -> None:
    programs = [SLOW, "assert True", "assert False", SLOW, "x = y"]
    assert [v.passed for v in judge(*programs, workers=3)] == [True, True, False, True, False]


def test_no_programs_no_verdicts() -> None:
    assert judge() == []


def test_an_empty_program_runs_to_its_end() -> None:
    assert judge("") == [Verdict(True, "passed")]


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("assert 1 + 1 == 3, 'sum'", Verdict(False, "wrong", "AssertionError: sum")),
        ("{}['key']", Verdict(False, "error", "KeyError: 'key'")),
        ("raise MemoryError", Verdict(False, "memory", "MemoryError: ")),
        ("import sys; sys.exit('bye')", Verdict(False, "exit", "SystemExit: bye")),
        ("raise ValueError('two\\nlines')", Verdict(False, "error", "ValueError: two lines")),
    ],
)
def test_the_reason_is_given(program: str, verdict: Verdict) -> None:
    assert judge(program) == [verdict]


def test_a_long_message_is_cut() -> None:
    assert len(judge("raise ValueError('x' * 10**6)")[0].detail) == 400


def test_what_honest_programs_use_works() -> None:
    # A Python that lies in /tmp itself is shown there; nothing else is.
    in_tmp = {Path(path).parts[2] for path in running.readable_paths() if path.startswith("/tmp/")}
    programs = [
        "import dataclasses, typing\n@dataclasses.dataclass\nclass A:\n    x: typing.List[int]\nassert A([1]).x == [1]",
        "import pickle\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "import subprocess, sys\nassert subprocess.run(['/bin/sh', '-c', 'exit 3']).returncode == 3",
        "open('note', 'w').write('x')\nassert open('note').read() == 'x'",
        "import tempfile\nwith tempfile.NamedTemporaryFile() as f: f.write(b'x')",
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nassert f(3000) == 0",
        "print('é', '\\U0001f600')\nassert 'é'.encode() == b'\\xc3\\xa9'",
        f"import os\nassert os.getcwd() and set(os.listdir()) <= set({sorted(in_tmp)})",
        "import numpy\nassert numpy.ones((100, 100)).dot(numpy.ones(100)).sum() == 10000",
    ]
    assert [v for v in judge(*programs) if not v.passed] == []


def test_a_module_s_main_block_does_not_run_as_in_the_stock_judge() -> None:
    assert judge("if __name__ == '__main__':\n    raise ValueError")[0].passed


def test_sets_are_in_the_same_order_each_time() -> None:
    tell = "raise ValueError(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))"
    assert len({v.detail for v in judge(*[tell] * 5)}) == 1


def test_a_limit_of_ones_own() -> None:
    program = "x = bytearray(200 << 20)"
    assert judge(program)[0].passed
    assert judge(program, limits=Limits(memory=100 << 20))[0].reason == "memory"


def test_the_clock_stops_a_program_that_waits() -> None:
    assert judge("import time; time.sleep(100)", limits=Limits(wall_seconds=0.5))[0].reason == "timeout"


@pytest.mark.parametrize("isolation", [Isolation(False, False)], ids=["no namespaces"])
def test_less_isolation_judges_alike(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "best_isolation", lambda: isolation)
    orphan = "import os, time\nif not os.fork():\n    os.setsid()\n    os.fork()\n    time.sleep(1000)\nos._exit(0)"
    programs = ["assert True", "assert False", "while True: pass", orphan, "import os; os._exit(0)"]
    verdicts = judge(*programs, limits=Limits(cpu_seconds=1, wall_seconds=3.0))
    assert [v.reason for v in verdicts] == ["passed", "wrong", "timeout", "exit", "exit"]


def test_what_a_kernel_does_not_allow_is_named(
    monkeypatch: pytest.MonkeyPatch, harness_log: pytest.LogCaptureFixture
) -> None:
    outcome = running._outcome

    def no_namespaces(program: str, limits: Limits, isolation: Isolation, *rest: Any) -> dict[str, Any]:
        if isolation.namespaces:
            return {"failure": "OSError: [Errno 1] unshare: Operation not permitted"}
        return outcome(program, limits, isolation, *rest)

    monkeypatch.setattr(running, "_outcome", no_namespaces)
    best_isolation.cache_clear()
    assert not best_isolation().namespaces
    best_isolation.cache_clear()
    assert "process numbers of their own" in harness_log.text
    assert "Operation not permitted" in harness_log.text


def test_nothing_works_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_outcome", lambda *_: {"failure": "OSError: no processes"})
    best_isolation.cache_clear()
    with pytest.raises(UserError, match="can't be isolated on this machine: OSError: no processes"):
        judge("assert True")


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    best_isolation.cache_clear()
    monkeypatch.setattr("lm_eval_calibration.code_judge.running.os.name", "nt")
    with pytest.raises(UserError, match="Windows"):
        judge("assert True")


def test_the_launcher_ends_with_whoever_asked() -> None:
    code = (
        "import os, threading, time\n"
        "from lm_eval_calibration.code_judge import run_programs\n"
        "threading.Timer(1.0, os._exit, [0]).start()\n"
        "run_programs(['import time; time.sleep(20)'], progress=False)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=10)
    deadline = time.monotonic() + 3
    while launchers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert launchers() == []
