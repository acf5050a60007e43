"""Every benchmark still finds what it imports, so that none rots between its runs."""

import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = [path for path in sorted(Path(__file__).parent.rglob("*.py")) if not path.name.startswith("test_")]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_can_be_started(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with mock.patch.dict(os.environ):
        assert runpy.run_path(str(path), run_name="imported")["__doc__"]
