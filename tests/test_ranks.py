"""Two processes over gloo give the numbers of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "ranks_worker.py"


def run_ranks(n: int, output: Path) -> dict[str, dict[str, float]]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(output)],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n)
    ]
    said = [worker.communicate(timeout=240)[0] for worker in workers]
    for worker, text in zip(workers, said, strict=True):
        assert worker.returncode == 0, text
    return json.loads(output.read_text(encoding="utf-8"))


def test_two_ranks_give_the_numbers_of_one(tmp_path: Path) -> None:
    one = run_ranks(1, tmp_path / "one.json")
    two = run_ranks(2, tmp_path / "two.json")
    assert set(one) == set(two) == {"letters_calibration", "digits_calibration", "both_calibration"}
    for task, row in one.items():
        assert len(row) == 12
        assert two[task] == pytest.approx(row, abs=1e-12, rel=0, nan_ok=True)
