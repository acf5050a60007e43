"""Programs whose outcome depends on when annotations are evaluated get plain Python's verdict."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_calibration.code_judge import run_programs

TYPES = ("int", "str", "List[int]", "Missing", "'int'", "'Missing'", "None", "list[int]", "Optional[str]", "int | None")
IMPORTS = ("", "from typing import *\n", "from __future__ import annotations\n")
USES = (
    "def f(x: {0}) -> {0}: return x\nassert f(1) == 1",
    "def f(x: {0}): ...\nassert not isinstance(f.__annotations__['x'], str)",
    "def f(x: {0}): ...\nassert isinstance(f.__annotations__['x'], str)",
    "class A:\n    x: {0} = 1\nassert A.__annotations__['x'] in (int, str)",
    "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: {0}\n"
    "assert not isinstance(dataclasses.fields(A)[0].type, str)",
    "import inspect\ndef f(x: {0}): ...\nassert inspect.signature(f).parameters['x'].annotation is int",
    "import typing\ndef f(x: {0}): ...\nassert typing.get_type_hints(f)['x'] is int",
    "x: {0} = 1\nassert __annotations__['x'] is int",
    "from typing import NamedTuple\nclass A(NamedTuple):\n    x: {0}\nassert A(1).x == 1",
    "def f():\n    x: {0} = 1\n    return x\nassert f() == 1",
)
PROGRAMS = [start + use.format(name) for start, use, name in itertools.product(IMPORTS, USES, TYPES)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the judge refuses Windows")
def test_verdicts_are_plain_pythons(tmp_path: Path) -> None:
    assert len(PROGRAMS) == 300
    expected = []
    for index, program in enumerate(PROGRAMS):
        file = tmp_path / f"{index}.py"
        file.write_text(program, encoding="utf-8")
        plain = [sys.executable, "-I", "-S", str(file)]  # no program needs a package
        expected.append(subprocess.run(plain, capture_output=True, check=False).returncode == 0)
    found = [verdict.passed for verdict in run_programs(PROGRAMS, progress=False)]
    assert [i for i in range(300) if found[i] != expected[i]] == []
    assert 50 < sum(expected) < 250
