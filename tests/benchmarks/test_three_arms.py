"""The benchmark for whoever has a GPU, on a CPU with a tiny model: its table, its exit code where an arm falls back."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import three_arms

from lm_eval_calibration.backends.hf import log_likelihood

pytestmark = pytest.mark.slow

ARGUMENTS = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--limit", "8", "--repeats", "1"]


def test_a_table_and_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert three_arms.main(ARGUMENTS) == 0
    printed = capsys.readouterr().out
    for arm in three_arms.ARMS:
        assert f"| {arm} |" in printed
    assert "estimated seconds" in printed
    parts = dict(row.strip("| ").split(" | ", 1) for row in printed.split("| estimate of |")[1].splitlines()[2:5])
    for arm in three_arms.ARMS:
        _calls, _tokens, *seconds, of_layers, launched = map(float, parts[arm].split(" | "))
        assert len(seconds) == 5
        assert 0 < of_layers < launched
    assert "shape tiny, float32; attention sdpa; questions of our own, 5 shots" in printed


def test_a_fallback_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(log_likelihood._Scoring, "_shared", lambda *_: set())
    assert three_arms.main(ARGUMENTS) == 1
    assert "ours, shared: 0 of 8 docs shared prefixes: it fell back" in capsys.readouterr().out
