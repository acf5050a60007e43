"""Several processes over gloo give the numbers of one."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from lm_eval.api.task import ConfigurableTask

from lm_eval_calibration.harness.ranks import tolerate_missing_metrics

WORKER = Path(__file__).parents[1] / "ranks_worker.py"

RUNS = {
    "one": (1, 42, 29, "whole"),
    "two": (2, 42, 29, "whole"),
    "two sharded": (2, 42, 29, "sharded"),
    "one few": (1, 4, 2, "whole"),
    "three few": (3, 4, 2, "whole"),  # the third rank has no doc of either task: a stock run breaks
    "one follow-ups": (1, 22, 2, "follow_ups"),
    "three follow-ups": (3, 22, 2, "follow_ups"),  # the third rank has none of the two docs
    "one, a doc waits": (1, 9, 1, "sharded waits"),
    "two, a doc waits": (2, 9, 1, "sharded waits"),  # the second rank has none that waits
    "one corpus": (1, 4, 0, "sharded corpus"),
    "two corpus": (2, 4, 0, "sharded corpus"),  # the second rank has one text, the first three
    "one final answers": (1, 22, 2, "final_answers"),
    "three final answers": (3, 22, 2, "final_answers"),
}

Numbers = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> dict[str, Numbers]:
    """The numbers of each run."""
    folder = tmp_path_factory.mktemp("ranks")
    names = ("n_ranks", "n_docs", "n_letters", "kind")
    jobs = [dict(zip(names, run, strict=True), output=str(folder / name)) for name, run in RUNS.items()]
    command = [*python, str(WORKER), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in RUNS}


@pytest.mark.slow
@pytest.mark.parametrize(("one", "several"), [("one", "two"), ("one", "two sharded"), ("one few", "three few")])
def test_several_ranks_give_the_numbers_of_one(numbers: dict[str, Numbers], one: str, several: str) -> None:
    expected = numbers[one]
    assert set(expected) == set(numbers[several]) == {"letters_calibration", "digits_calibration", "both_calibration"}
    for task, row in expected.items():
        assert len(row) == 12
        assert numbers[several][task] == pytest.approx(row, abs=1e-12, rel=0, nan_ok=True)


@pytest.mark.slow
def test_follow_ups_to_answers_are_those_of_one_rank(numbers: dict[str, Numbers]) -> None:
    one, several = numbers["one follow-ups"], numbers["three follow-ups"]
    assert set(one) == set(several) == {"few_p_true", "many_p_true", "few_words", "many_words"}
    assert {"ece_p_true,none", "auroc_p_true,none"} <= set(one["many_p_true"])
    assert {"ece_verbalized,none", "auroc_verbalized,none"} <= set(one["many_words"])
    assert 0 < one["many_words"]["unparsed,none"] < 1
    for task, row in one.items():
        assert several[task] == pytest.approx(row, abs=1e-12, rel=0, nan_ok=True)


@pytest.mark.slow
def test_a_rank_where_nothing_waits_makes_the_others_second_call(numbers: dict[str, Numbers]) -> None:
    one, several = numbers["one, a doc waits"], numbers["two, a doc waits"]
    assert set(one) == set(several)
    assert "ece_p_true,none" in one["few_p_true"]
    for task, row in one.items():
        defined = {name: value for name, value in row.items() if value != "N/A"}
        found = {name: value for name, value in several[task].items() if value != "N/A"}
        assert found == pytest.approx(defined, abs=1e-5, rel=0, nan_ok=True)


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


@pytest.mark.slow
def test_final_answers_are_those_of_one_rank(numbers: dict[str, Numbers]) -> None:
    """Outcomes that only other ranks' docs have are counted, and options and budgets are those of one rank."""
    one, several = numbers["one final answers"], numbers["three final answers"]
    assert {"ece_answer,none", "brier_score_answer,none", "ece_tail,none", "auroc_chain,none", "answered,none"} <= set(
        one["many_final_answers"]
    )
    for task, row in one.items():
        undefined = {name: value for name, value in row.items() if value == "N/A"}  # as the harness says it
        assert {name: value for name, value in several[task].items() if value == "N/A"} == undefined
        defined = {name: value for name, value in row.items() if name not in undefined}
        found = {name: value for name, value in several[task].items() if name not in undefined}
        assert found == pytest.approx(defined, abs=1e-12, rel=0, nan_ok=True)


@pytest.mark.slow
def test_a_corpus_on_a_sharded_model_is_computed_some_positions_at_a_time(numbers: dict[str, Numbers]) -> None:
    one, two = numbers["one corpus"], numbers["two corpus"]
    assert one.pop("most positions") == {"0": 50}
    assert two.pop("most positions") == {"0": 50, "1": 50}
    assert set(one) == set(two) == {"0", "1", "2", "3"}
    for text, expected in one.items():
        assert two[text] == pytest.approx(expected, rel=1e-5)
