"""No sentence, mark or verdict of runs side by side contradicts the numbers beside it: runs are drawn at random."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from made_runs import write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.compare.sentences import results_sentences
from lm_eval_calibration.reports.compare.table import ALPHA, Table, badness, make_table
from lm_eval_calibration.reports.numbers import interval, p_equals
from lm_eval_calibration.results.columns import title

METRICS = ["acc", "ece", "auroc", "overconfidence"]


def random_runs(folder: Path, seed: int) -> list[Path]:
    """Two or three models on the same docs, of random sharpness; the third may have the first's answers."""
    rng = np.random.default_rng([25, seed])
    n = int(rng.choice([12, 40, 150]))
    made = []
    for i in range(int(rng.integers(2, 4))):
        of_model = 0 if i == 2 else int(rng.choice([i, i + 10]))
        sharpness = float(rng.choice([0.2, 1.0, 1.5, 4.0]))
        options: dict[str, Any] = {"model": f"org/m{i}", "seed": of_model, "sharpness": sharpness}
        made.append(write_run(folder / f"m{i}", tasks={"t_calibration": n}, docs=seed, **options))
    return made


def check_sentences(table: Table) -> None:
    pairs = [pair for pair in table.pairs if not math.isnan(pair.p_adjusted) and table.labels[0] in (pair.a, pair.b)]
    said = results_sentences(table)
    assert len(said) == len(pairs)
    ends = [" is not shown to differ from " in sentence for sentence in said]
    assert ends == sorted(ends)  # differences first
    for pair in pairs:
        what = "accuracy" if pair.metric == "acc" else title(pair.metric)
        (sentence,) = (one for one in said if one.startswith(f"{pair.b}'s {what} is "))
        assert f"{p_equals(pair.p_adjusted)}, Holm over {counted(table.n_tests, what='tests')}" in sentence
        assert has_interval(pair, sentence)
        differs = " is not shown to differ from " not in sentence
        assert differs == (pair.p_adjusted <= ALPHA)
        if differs:
            assert (pair.low > 0) == (" is higher" in sentence)
            assert (pair.high < 0) == (" is lower" in sentence)
        else:
            assert ("(of this difference alone)" in sentence) == (pair.low > 0 or pair.high < 0)
            assert not re.search(r" is (higher|lower) ", sentence)


def has_interval(pair: Any, sentence: str) -> bool:
    low, high = sorted((abs(pair.low), abs(pair.high)))
    return interval(pair.low, pair.high, "+.3f") in sentence or interval(low, high, ".3f") in sentence


def check_marks(table: Table) -> None:
    for scope in table.scopes:
        for metric in table.metrics:
            cells = [row[metric] for row in scope.rows.values() if not math.isnan(row[metric].value)]
            best = [badness(metric, cell.value) for cell in cells if cell.mark == "best"]
            for cell in cells:
                assert math.isnan(cell.low) or cell.low <= cell.high
                assert not best or badness(metric, cell.value) >= min(best)
                if cell.mark == "tied":
                    assert cell.p_best > ALPHA
                elif not cell.mark and not cell.reason:
                    assert cell.p_best <= ALPHA


def check_drift(a: Path, b: Path) -> None:
    data = json.loads(run_command("drift", a, b, "--format", "json").stdout)
    for test in data["tests"]:
        if test["verdict"] == "drifted":
            assert test["low"] > test["tolerance"] - 0.05
            assert test["p_adjusted"] <= ALPHA
        elif test["verdict"] == "within":
            assert test["high"] <= test["tolerance"]
        elif test["verdict"] == "unclear":
            assert test["high"] > test["tolerance"]
        elif test["verdict"] == "unchanged":
            assert (test["worsening"], test["base"]) == (0, test["new"])
        assert test["worsening"] is None or test["low"] - 1e-9 <= test["worsening"] <= test["high"] + 1e-9
    drifted = {test["metric"] for test in data["tests"] if test["verdict"] == "drifted"}
    assert (data["verdict"] == "drifted") == bool(drifted)
    assert data["summary"].startswith("drifted: " if drifted else "no drift shown")
    for word, verdict in (("unclear", "unclear"), ("the same in every doc", "unchanged")):
        n = sum(test["verdict"] == verdict for test in data["tests"])
        assert (f"{n} {word}" in data["summary"]) == bool(n)


@pytest.mark.parametrize("seed", range(4))
def test_words_of_two_runs_agree_with_their_numbers(seed: int, tmp_path: Path) -> None:
    made = random_runs(tmp_path, seed)
    table = make_table({path.name: load_run(path) for path in made}, METRICS)
    check_sentences(table)
    check_marks(table)
    check_drift(*made[:2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 100, 12))
def test_words_of_many_runs_agree_with_their_numbers(seed: int, tmp_path: Path) -> None:
    for one in range(seed, seed + 12):
        test_words_of_two_runs_agree_with_their_numbers(one, tmp_path / str(one))
