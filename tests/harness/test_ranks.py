"""Two processes over gloo give the numbers of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from lm_eval.api.task import ConfigurableTask

from lm_eval_calibration.harness.ranks import tolerate_missing_metrics

WORKER = Path(__file__).parents[1] / "ranks_worker.py"


def run_ranks(n: int, output: Path, n_docs: int, n_letters: int, kind: str) -> dict[str, dict[str, float]]:
    """Ask docs in two tasks, the first of which has ``n_letters``, on n ranks.

    With kind "asked" both are asked twice: for P(true), and for confidence in words.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(output), str(n_docs), str(n_letters), kind],
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


@pytest.mark.parametrize(
    ("n_ranks", "n_docs", "n_letters", "weights"),
    [
        (2, 42, 29, "whole"),
        (2, 42, 29, "sharded"),
        (3, 4, 2, "whole"),  # the third rank has no doc of either task: a stock run breaks
    ],
)
def test_several_ranks_give_the_numbers_of_one(
    tmp_path: Path, n_ranks: int, n_docs: int, n_letters: int, weights: str
) -> None:
    one = run_ranks(1, tmp_path / "one.json", n_docs, n_letters, "whole")
    several = run_ranks(n_ranks, tmp_path / "several.json", n_docs, n_letters, weights)
    assert set(one) == set(several) == {"letters_calibration", "digits_calibration", "both_calibration"}
    for task, row in one.items():
        assert len(row) == 12
        assert several[task] == pytest.approx(row, abs=1e-12, rel=0, nan_ok=True)


def test_what_is_asked_about_answers_is_that_of_one(tmp_path: Path) -> None:
    one = run_ranks(1, tmp_path / "one.json", 22, 2, "asked")
    several = run_ranks(3, tmp_path / "several.json", 22, 2, "asked")  # the third rank has none of the two docs
    assert set(one) == set(several) == {"few_p_true", "many_p_true", "few_words", "many_words"}
    assert {"ece_p_true,none", "auroc_p_true,none"} <= set(one["many_p_true"])
    assert {"ece_verbalized,none", "auroc_verbalized,none"} <= set(one["many_words"])
    assert 0 < one["many_words"]["unparsed,none"] < 1
    for task, row in one.items():
        assert several[task] == pytest.approx(row, abs=1e-12, rel=0, nan_ok=True)


def test_gathered_parts_lack_nothing_that_rank_0_looks_up() -> None:
    parts = [{"t": {("acc", "none"): [1.0]}, "samples": ["a"]}, {"t": {}, "samples": []}]
    lm = SimpleNamespace(gather_object=lambda obj, dst=0: parts if dst == 0 else None)
    for _ in range(2):  # once for each task of a run
        tolerate_missing_metrics(lm)
    first, second = lm.gather_object(None)
    assert first["t"] == {("acc", "none"): [1.0]}
    assert second["t"]["acc", "none"] == []
    assert (first["samples"], second["samples"]) == (["a"], [])
    assert lm.gather_object(None, dst=1) is None
    assert not hasattr(lm.gather_object.stock, "stock")


def test_stock_still_breaks_on_a_rank_without_docs() -> None:
    """When this fails the harness has mended it: `harness/ranks.py` may go."""
    config = tiny.make_config(tiny.make_rows(2))
    config.pop("class", None)
    task = ConfigurableTask(config=config)
    with pytest.raises(ValueError, match="did not find any docs"):
        task.build_all_requests(rank=2, world_size=3)
