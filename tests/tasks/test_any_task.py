"""Any task by its name: the user's own in every shape, the harness's thousands, groups and tags."""

import json
import random
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import TaskConfig
from tiny import run_tasks
from typer.testing import CliRunner
from users_tasks import SHAPES, make_rows, write_task

from lm_eval_calibration import calibrated
from lm_eval_calibration.cli import app
from lm_eval_calibration.harness.index import kind_of, read_index
from lm_eval_calibration.harness.stock import stock_config
from lm_eval_calibration.metrics import CORE, GENERATION_CORE
from lm_eval_calibration.records import RECORD_KEY, Record
from lm_eval_calibration.tasks import CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.any_task import calibrated as calibrated_configs
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.configuration import configuration, reason_unsupported

TRANSLATES = {
    "output_type": "generate_until",
    "doc_to_text": "question",
    "doc_to_target": "right",
    "metric_list": [{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}],
}

GROUP = {
    "group": "trees",
    "task": ["letters", {"group": "texts", "task": ["text_gold", {"task": "ragged", "num_fewshot": 2}]}],
    "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users_tasks")
    for name, keys in SHAPES.items():
        write_task(path, name, **{"tag": "shapes", **keys} if name in ("letters", "ragged") else keys)
    (path / "trees.yaml").write_text(yaml.safe_dump(GROUP), encoding="utf-8")
    return path


def manager_of(folder: Path, **options: Any) -> CalibrationTaskManager:
    return CalibrationTaskManager(include_path=str(folder), include_defaults=False, **options)


def run(lm: Any, folder: Path, names: list[str], **options: Any) -> dict[str, Any]:
    manager = manager_of(folder, metadata=options.pop("metadata", None))
    return simple_evaluate(model=lm, tasks=manager.match_tasks(names), task_manager=manager, **options)


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(gpt2_lm: Any, folder: Path) -> Any:
    """Function that runs the tasks of every shape and ours beside them, once for each number of examples."""

    @cache
    def of(num_fewshot: int) -> dict[str, Any]:
        names = [name for shape in SHAPES for name in (shape, f"{shape}_calibration")]
        return run(gpt2_lm, folder, names, num_fewshot=num_fewshot, bootstrap_iters=10)

    return of


@pytest.mark.parametrize("num_fewshot", [0, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_accuracy_is_the_stock_task_s_doc_by_doc(shape: str, num_fewshot: int, runs: Any) -> None:
    results = runs(num_fewshot)
    stock, ours = (results["samples"][name] for name in (shape, f"{shape}_calibration"))
    assert len(stock) == len(ours) == 16
    assert 0 < results["results"][shape]["acc,none"] < 1  # else equality says little
    for theirs, mine in zip(stock, ours, strict=True):
        assert mine["arguments"] == theirs["arguments"]
        assert (mine["doc_hash"], mine["acc"]) == (theirs["doc_hash"], theirs["acc"])
        assert mine.get("acc_norm") == theirs.get("acc_norm")
        record = Record.from_dict(mine[RECORD_KEY])
        assert record.correct == theirs["acc"]
    row = results["results"][f"{shape}_calibration"]
    assert {f"{name},none" for name in ("acc", *CORE)} <= set(row)
    assert row["acc,none"] == results["results"][shape]["acc,none"]
    assert all(0 <= row[f"{name},none"] <= 2 for name in CORE if name != "auroc")


REAL_TASKS = ["mmlu_anatomy", "mmlu_anatomy_continuation", "medqa_4options", "medmcqa", "pubmedqa"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("num_fewshot", [0, 3])
def test_accuracy_on_real_data_is_the_stock_task_s_doc_by_doc(
    num_fewshot: int, gpt2_lm: Any, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub)
    tasks = [t for name in REAL_TASKS for t in (ConfigurableTask(config=stock_config(name)), calibrated(name))]
    results = run_tasks(gpt2_lm, tasks, num_fewshot=num_fewshot, limit=12, bootstrap_iters=10)
    for name in REAL_TASKS:
        for theirs, mine in zip(results["samples"][name], results["samples"][f"{name}_calibration"], strict=True):
            assert mine["arguments"] == theirs["arguments"]
            assert (mine["acc"], mine.get("acc_norm")) == (theirs["acc"], theirs.get("acc_norm"))


def test_ragged_docs_have_their_own_numbers_of_choices(runs: Any) -> None:
    samples = runs(0)["samples"]["ragged_calibration"]
    assert {len(sample[RECORD_KEY]["log_likelihoods"]) for sample in samples} == {2, 3, 4}


def test_length_normalized_metrics_have_names_of_their_own(runs: Any, gpt2_lm: Any, folder: Path) -> None:
    import numpy as np

    from lm_eval_calibration import metrics

    options = {"calibration": {"confidence": "length_normalized", "metrics": ["overconfidence"]}}
    results = run(gpt2_lm, folder, ["multi_token_calibration"], metadata=options)
    row = {key.removesuffix(",none"): value for key, value in results["results"]["multi_token_calibration"].items()}
    plain = runs(0)["results"]["multi_token_calibration"]
    assert {n: row[n] for n in ("acc", *CORE)} == pytest.approx({n: plain[f"{n},none"] for n in ("acc", *CORE)})
    probs, labels = [], []
    for sample in results["samples"]["multi_token_calibration"]:
        values = [
            ll / len(choice) for (((ll, _),), choice) in zip(sample["resps"], sample["doc"]["options"], strict=True)
        ]
        weights = np.exp(np.array(values) - max(values))
        probs.append(weights / weights.sum())
        labels.append(sample["doc"]["answer"])
        assert sample["acc_norm"] == int(np.argmax(values) == labels[-1])
    confidence, correct = (
        [p.max() for p in probs],
        [s["acc_norm"] for s in results["samples"]["multi_token_calibration"]],
    )
    expected = {
        "ece_norm": metrics.ece(confidence, correct),
        "brier_score_norm": metrics.brier_score(probs, labels),
        "ace_norm": metrics.ace(probs, labels),
        "auroc_norm": metrics.auroc(confidence, correct),
        "overconfidence_norm": metrics.overconfidence(confidence, correct),
        "acc_norm": float(np.mean(correct)),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert all(row[f"{name}_stderr"] > 0 for name in expected)
    assert "full_ece_norm" not in row


# --- groups and tags --------------------------------------------------------------------------------------------------


def test_groups_in_groups_are_pooled_and_keep_their_overrides(gpt2_lm: Any, folder: Path) -> None:
    from lm_eval_calibration import metrics
    from lm_eval_calibration.records import metric_arrays

    results = run(gpt2_lm, folder, ["trees_calibration", "trees"], bootstrap_iters=10)
    leaves = ["letters_calibration", "ragged_calibration", "text_gold_calibration"]
    assert results["n-shot"]["ragged_calibration"] == 2
    records = [Record.from_dict(s[RECORD_KEY]) for leaf in leaves for s in results["samples"][leaf]]
    row = results["results"]["trees_calibration"]
    assert row["ece,none"] == pytest.approx(metrics.ece(*metric_arrays(records, "top_label", 10)), abs=1e-12)
    assert row["acc,none"] == results["results"]["trees"]["acc,none"]


def test_a_tag_is_pooled_like_a_group(gpt2_lm: Any, folder: Path) -> None:
    results = run(gpt2_lm, folder, ["shapes_calibration"])
    assert set(results["samples"]) == {"letters_calibration", "ragged_calibration"}
    assert {f"{name},none" for name in ("acc", *CORE)} <= set(results["results"]["shapes_calibration"])


def test_a_pooled_group_is_not_pooled_without_its_generation_tasks(folder: Path, tmp_path: Path) -> None:
    write_task(tmp_path, "one", **SHAPES["letters"])
    write_task(tmp_path, "writes", **TRANSLATES)
    group = {"group": "mixed", "task": ["one", "writes"]}
    (tmp_path / "mixed.yaml").write_text(
        yaml.safe_dump({**group, **{"aggregate_metric_list": GROUP["aggregate_metric_list"]}})
    )
    (tmp_path / "loose.yaml").write_text(yaml.safe_dump({**group, "group": "loose"}))
    message = r"mixed pools .* 1 of its tasks can't be calibrated \(writes: its metric bleu, aggregated by bleu, calls"
    with pytest.raises(TaskError, match=message) as error:
        manager_of(tmp_path).match_tasks(["mixed_calibration"])
    assert "These can: --tasks one_calibration" in str(error.value)
    assert manager_of(tmp_path).match_tasks(["loose_calibration"]) == ["loose_calibration"]


@pytest.mark.parametrize("member", ["writes", "loose"])
def test_what_another_group_left_out_is_missing_in_a_pool_as_well(member: str, tmp_path: Path) -> None:
    write_task(tmp_path, "one", **SHAPES["letters"])
    write_task(tmp_path, "writes", **TRANSLATES)
    groups = {
        "loose": {"task": ["one", "writes"]},
        "pool": {"task": ["one", member], "aggregate_metric_list": GROUP["aggregate_metric_list"]},
        "top": {"task": ["loose", "pool"]},
    }
    for name, keys in groups.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"group": name, **keys}), encoding="utf-8")
    with pytest.raises(TaskError, match=r"pool pools its tasks' numbers, and 1 of its tasks can't be calibrated"):
        manager_of(tmp_path).match_tasks(["top_calibration"])


def test_left_out_tasks_are_named(tmp_path: Path, harness_log: pytest.LogCaptureFixture) -> None:
    write_task(tmp_path, "one", **{**SHAPES["letters"], "tag": "t"})
    write_task(tmp_path, "own", **{**SHAPES["letters"], "tag": "t", "process_results": "!utils.to_text"})
    loaded = manager_of(tmp_path).load(["t_calibration"])
    assert set(loaded["tasks"]) == {"one_calibration"}
    assert "t_calibration leaves out what can't be calibrated: own (it has a process_results" in harness_log.text


# --- names ------------------------------------------------------------------------------------------------------------


def test_patterns_match_calibrated_names(folder: Path) -> None:
    matches = manager_of(folder).match_tasks(["le*_calibration"])
    assert matches == ["letter_gold_calibration", "letters_calibration"]


def test_a_stock_task_s_name_needs_no_stock_index() -> None:
    manager = CalibrationTaskManager()
    assert manager.match_tasks(["hellaswag_calibration"]) == ["hellaswag_calibration"]
    assert manager.stock_index_is_due
    assert manager.task_index["hellaswag_calibration"].cfg["stock_task"] == "hellaswag"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truthfulqa_mc2_calibration", "truthfulqa_mc2 can't be calibrated: it has a process_results of its own"),
        ("meqsum_calibration", "meqsum can't be calibrated: its metric bleu, aggregated by nanmean, calls no"),
        ("lambada_openai_calibration", "lambada_openai can't be calibrated: its output_type is 'loglikelihood'"),
        ("squadv2_calibration", "squadv2 can't be calibrated: it is a Python class of its own"),
        pytest.param(  # the stock index is read
            "mafand_calibration",
            "mafand can't be calibrated: mafand_en-amh_prompt_1: its metric bleu",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_can_t_be_calibrated_says_why(name: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        CalibrationTaskManager().match_tasks([name])


def test_a_user_s_task_comes_before_the_harness_s(tmp_path: Path) -> None:
    write_task(tmp_path, "hellaswag", **SHAPES["letters"])
    (task,) = manager_of(tmp_path).load(["hellaswag_calibration"])["tasks"].values()
    assert task.config.dataset_path == "json"


# --- the harness's thousands ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock_index() -> dict[str, Any]:
    return read_index(None)


@pytest.mark.slow
def test_the_harness_s_tasks_are_calibrated_or_say_why(stock_index: dict[str, Any]) -> None:
    """A seeded sample of the sweep over all of them; those that can't be name a reason."""
    leaves = {name: entry for name, entry in stock_index.items() if kind_of(entry) == "task"}
    reasons = {name: reason_unsupported(entry.cfg) for name, entry in leaves.items()}
    able = sorted(name for name, reason in reasons.items() if reason is None)
    assert len(able) > 8000
    known = re.compile(
        "it is a Python class of its own|it has a process_results of its own|its output_type is 'loglikelihood"
        "|its metric .* calls no answer right or wrong|it shows images or audio"
    )
    assert all(known.match(reason) for reason in reasons.values() if reason)
    unreadable = 0
    for name in random.Random(0).sample(able, 300):
        try:
            full = configuration({"task": f"{name}_calibration", "stock_task": str(leaves[name].yaml_path)}).full
        except TaskError as error:
            assert "can't be read: " in str(error)  # noqa: PT017  (a function of it needs a package that is missing)
            assert "Error(" in str(error)  # noqa: PT017
            unreadable += 1
        else:
            config = TaskConfig(**full)
            listed = [entry["metric"] for entry in config.metric_list]
            core = CORE if config.output_type == "multiple_choice" else GENERATION_CORE
            if config.output_type == "loglikelihood_rolling":
                assert {"full_ece", "ece", "token_accuracy"} < set(listed)  # beside the stock perplexities
                continue
            assert [metric for metric in listed if metric in core] == list(core)
            assert "acc" in listed
    assert unreadable < 15


@pytest.mark.slow
def test_the_harness_s_groups_and_tags_are_calibrated_or_say_why(stock_index: dict[str, Any]) -> None:
    names = sorted(name for name, entry in stock_index.items() if kind_of(entry) != "task")
    able = 0
    for name in names:
        try:
            made = calibrated_configs(name, stock_index)
        except TaskError as error:
            assert "can't be calibrated" in str(error) or "has no file of its own" in str(error)  # noqa: PT017
        else:
            able += 1
            assert f"{name}_calibration" in made.configs
            for config in made.configs.values():
                children = (
                    [c if isinstance(c, str) else c.get("task") for c in config["task"]] if "group" in config else []
                )
                assert all(isinstance(child, list | None) or child in made.configs for child in children)
    assert able > 1000
    assert len(names) > 1500


# --- files and Python -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_written_files_work_with_the_stock_command(folder: Path, tmp_path: Path, python: list[str]) -> None:
    out = tmp_path / "out"
    arguments = ["tasks", "--for", "trees,functions_calibration", "--include_path", str(folder), "--output", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.stem for path in out.iterdir()) == [
        f"{name}_calibration" for name in ("functions", "letters", "ragged", "text_gold", "trees")
    ]
    assert len((out / "ragged_calibration.yaml").read_text().splitlines()) == 3
    tasks = "trees_calibration,functions_calibration"
    done = subprocess.run(
        [*python, "-m", "lm_eval", "run", "--model", "dummy", "--include_path", str(out), "--tasks", tasks],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("trees_calibration", "ragged_calibration", "functions_calibration", "|ece "):
        assert name in done.stdout


@pytest.mark.slow
def test_nothing_is_written_where_something_is_wrong(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["tasks", "--for", "letters,lettres", "--include_path", str(folder), "--output", str(out)]
    )
    assert result.exit_code == 2
    assert "error: no task 'lettres' (did you mean letters?)" in result.output
    assert not out.exists()


@pytest.mark.slow
def test_list_all_says_what_can_be_calibrated_and_why_not(folder: Path) -> None:
    result = CliRunner().invoke(app, ["tasks", "--list", "--all", "--include_path", str(folder)])
    rows = dict(line.split("\t", 1) for line in result.stdout.splitlines() if "\t" in line)
    assert rows["ragged"] == "task\tyes"
    assert rows["trees"] == "group\tyes"
    assert rows["truthfulqa_mc2"] == "task\tno: it has a process_results of its own"
    assert "can be calibrated" in result.stderr


@pytest.mark.slow
def test_calibrated_in_python(gpt2_lm: Any, folder: Path) -> None:
    tasks = [calibrated(folder / "letters.yaml", n_bins=15), calibrated("ragged", include_path=folder)]
    results = simple_evaluate(model=gpt2_lm, tasks=tasks, bootstrap_iters=10)
    assert set(results["results"]) == {"letters_calibration", "ragged_calibration"}
    assert results["configs"]["letters_calibration"]["metadata"]["calibration"]["n_bins"] == 15
    group = calibrated(folder / "trees.yaml")
    assert [task.task_name for task in group.get_all_tasks()] == [
        f"{name}_calibration" for name in ("letters", "text_gold", "ragged")
    ]


def test_calibrated_takes_a_file_that_is_calibrated_already(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"task: mine_calibration\nstock_task: {folder}/letters.yaml\n"
        "class: !function lm_eval_calibration.tasks.CalibratedTask\nmetadata: {calibration: {n_bins: 7}}\n",
        encoding="utf-8",
    )
    task = calibrated(path, metrics=["mce"])
    assert isinstance(task, BaseTask)
    assert (task.options.n_bins, task.options.metrics) == (7, ("mce",))


def test_a_stock_task_file_is_seen_from_ours(folder: Path) -> None:
    path = folder / "sub" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "task: relative_calibration\nstock_task: ../letters.yaml\n"
        "class: !function lm_eval_calibration.tasks.CalibratedTask\n",
        encoding="utf-8",
    )
    assert len(calibrated(path).eval_docs) == 16


# --- what users get wrong ---------------------------------------------------------------------------------------------

LETTERS = SHAPES["letters"]
ROWS = make_rows(4)
SOME = {"doc_to_choice": "some"}


def change(rows: list[dict[str, Any]], index: int, **keys: Any) -> list[dict[str, Any]]:
    return [{**row, **keys} if i == index else row for i, row in enumerate(rows)]


NUMBERED = [{**row, "question": "1984"} for row in ROWS]

WRONG: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    ({"doc_to_texts": "question"}, ROWS, r"has a key 'doc_to_texts' that no task has \(did you mean doc_to_text\?"),
    (
        {"doc_to_text": "{{quest}}"},
        ROWS,
        r", doc 0: doc_to_text \('\{\{quest\}\}'\) fails: Undefined.*columns are question",
    ),
    ({"doc_to_text": "questoin"}, ROWS, r"doc_to_text is 'questoin' \(did you mean question\?\); the columns are"),
    ({"doc_to_target": "anwser"}, ROWS, r"doc_to_target (is|gives) 'anwser'"),
    ({"doc_to_choice": "optoins"}, ROWS, r", doc 0: doc_to_choice \('optoins' .* fails: .*the columns are question"),
    ({"doc_to_choice": "optoins"}, ROWS, r"\('optoins' \(did you mean options\?\)\) fails"),
    ({"test_split": "tset"}, ROWS, r": test_split is 'tset' \(did you mean test\?\); the splits are test, dev"),
    ({"test_split": None}, ROWS, " has neither test_split nor validation_split"),
    ({"dataset_path": None}, ROWS, " has no dataset_path"),
    ({"doc_to_text": None}, ROWS, " has no doc_to_text"),
    ({}, change(ROWS, 2, answer=7), ", doc 2: doc_to_target gives 7; the choices are 0 to 3"),
    ({}, change(ROWS, 0, answer=7), ", doc 0: doc_to_target gives 7; the choices are 0 to 3"),
    ({"doc_to_target": "letter"}, change(ROWS, 3, letter="E"), ", doc 3: doc_to_target gives 'E'; the choices are 'A'"),
    (SOME, change(change(ROWS, 1, some=[]), 3, some=[]), r", doc 1 \(and docs 3\): doc_to_choice gives no choices"),
    (SOME, change(ROWS, 0, some=[]), ", doc 0: doc_to_choice gives no choices"),
    (SOME, change(ROWS, 1, some=["x", ""]), ", doc 1.*: doc_to_choice gives an empty text as choice 1"),
    ({"doc_to_choice": [1, 2, 3, 4]}, ROWS, ", doc 0.*: doc_to_choice gives 1 as choice 0, not a text"),
    ({"doc_to_target": "{{[0, 1]}}"}, ROWS, ".* doc_to_target gives several gold answers"),
    ({"doc_to_text": "question"}, change(ROWS, 1, question=None), ", doc 1: doc_to_text gives None, not a text"),
    (
        {"doc_to_text": "{{question}}"},
        NUMBERED,
        r", doc 0 \(and docs 1, 2, 3\): doc_to_text gives 1984; .* the index of",
    ),
    ({"doc_to_target": "{{answer + 0.5}}"}, ROWS, r", doc 0 .*: doc_to_target gives '0.5'; the choices are 'A'"),
    ({"description": "{{nothing}}"}, ROWS, ", doc 0: its prompt can't be built: Undefined.* Look at the description"),
    ({"metric_list": ["acc"]}, ROWS, r": metric_list is \['acc'\], not a list of entries like - metric: acc"),
    ({"metric_list": "acc"}, ROWS, ": metric_list is 'acc', not a list of entries"),
    ({"metric_list": [{"metric": "acc_nrom"}]}, ROWS, r": metric_list has 'acc_nrom' \(did you mean acc_norm\?\)"),
    ({"metadata": [1]}, ROWS, r": metadata is \[1\], not a mapping"),
    ({"metadata": {"calibration": {"n_bin": 3}}}, ROWS, ".* has no option 'n_bin'"),
    ({"filter_list": [{"name": "x", "filter": [{"function": "no_such"}]}]}, ROWS, ": .*no_such"),
    ({"dataset_kwargs": {"data_files": {"test": "no.json"}}}, ROWS, ".* can't be loaded: .* Its data_files are"),
    ({"doc_to_target": "!utils.missing"}, ROWS, r"mine.yaml can't be read: AttributeError.*no function 'missing'"),
]


@pytest.mark.parametrize(("keys", "rows", "message"), WRONG)
def test_errors_name_file_doc_and_field(
    keys: dict[str, Any], rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    path = write_task(tmp_path, "mine", rows, **{**LETTERS, **keys})
    with pytest.raises(TaskError, match=message) as error:
        calibrated(path).build_all_requests()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("text", "said"), [("", "can't be loaded"), ('{"question": "?"', "can't be loaded: .*JSON")])
def test_broken_data_files_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = write_task(tmp_path, "mine", **LETTERS)
    (tmp_path / "mine.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=rf"mine_calibration: the data set json {said}"):
        calibrated(path)


@pytest.mark.parametrize("keys", [{"answer": 9}, {"options": None}])
def test_a_bad_few_shot_example_is_named(keys: dict[str, Any], tmp_path: Path) -> None:
    examples = {"sampler": "first_n", "samples": [{**row, **keys} for row in make_rows(2)]}
    path = write_task(tmp_path, "mine", **{**LETTERS, "fewshot_split": None, "fewshot_config": examples})
    task = calibrated(path)
    task.set_config("num_fewshot", 2)
    with pytest.raises(TaskError, match=r"doc 0: its prompt can't be built: .* few-shot|a few-shot example: .* fails"):
        task.build_all_requests()


def test_more_examples_than_there_are_is_one_error(tmp_path: Path) -> None:
    task = calibrated(write_task(tmp_path, "mine", **LETTERS))
    task.set_config("num_fewshot", 50)
    task.set_fewshot_seed(1)
    with pytest.raises(TaskError, match=r"doc 0: its prompt can't be built: .*whether there are enough of them"):
        task.build_all_requests()


def test_metrics_of_the_harness_and_choices_in_a_tuple_are_taken_as_it_takes_them(gpt2_lm: Any, tmp_path: Path) -> None:
    two = {"doc_to_choice": ["A", "B"], "doc_to_target": "which"}
    for metric in ("f1", "mcc"):
        write_task(tmp_path, metric, **{**LETTERS, **two, "metric_list": [{"metric": metric}]})
    write_task(tmp_path, "tuple", **{**LETTERS, "doc_to_choice": "{{('A', 'B', 'C', 'D')}}"})
    names = [name for task in ("f1", "mcc", "tuple") for name in (task, f"{task}_calibration")]
    results = run(gpt2_lm, tmp_path, names, bootstrap_iters=4)["results"]
    for metric in ("f1", "mcc"):  # named alone, they get the harness's own aggregation
        assert results[f"{metric}_calibration"][f"{metric},none"] == results[metric][f"{metric},none"]
        assert "acc,none" in results[f"{metric}_calibration"]
    assert results["tuple_calibration"]["acc,none"] == results["tuple"]["acc,none"]


@pytest.mark.slow
def test_files_for_a_relative_include_path_name_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "mine", **LETTERS)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["tasks", "--for", "mine", "--include_path", ".", "--output", "out"])
    assert result.exit_code == 0, result.output
    assert calibrated("out/mine_calibration.yaml").config.doc_to_text == LETTERS["doc_to_text"]
    assert manager_of(Path()).match_tasks(["mine_calibration"]) == ["mine_calibration"]


def test_a_folder_named_like_a_task_is_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "mine", **LETTERS)
    (tmp_path / "mine_calibration").mkdir()
    monkeypatch.chdir(tmp_path)
    assert manager_of(tmp_path).match_tasks(["mine_calibration"]) == ["mine_calibration"]


def test_a_user_s_task_comes_before_the_file_that_we_ship(tmp_path: Path) -> None:
    write_task(tmp_path, "pubmedqa", **LETTERS)
    for names in (["pubmedqa_calibration"], ["pubmed*_calibration"]):
        (task,) = manager_of(tmp_path).load(manager_of(tmp_path).match_tasks(names))["tasks"].values()
        assert task.config.dataset_path == "json"


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "utils.py").touch()
    path = write_task(tmp_path, "mine", **{**LETTERS, "process_docs": "!utils2.none"})
    (tmp_path / "utils2.py").write_text("def none(dataset):\n    return dataset.select([])\n", encoding="utf-8")
    with pytest.raises(
        TaskError, match=r"mine\.yaml: mine_calibration: the split 'test' that is evaluated has no docs"
    ):
        calibrated(path)


def test_a_missing_column_in_one_doc_is_named(tmp_path: Path) -> None:
    (tmp_path / "utils3.py").write_text(
        "def text(doc):\n    return {'Which tree is number 2?': doc['question']}[doc['question']]\n", encoding="utf-8"
    )
    path = write_task(tmp_path, "mine", make_rows(4)[2:], **{**LETTERS, "doc_to_text": "!utils3.text"})
    with pytest.raises(TaskError, match=r"mine_calibration, doc 1: doc_to_text \(text\) fails: KeyError"):
        calibrated(path).build_all_requests()


def test_a_label_marked_broken_is_no_error(gpt2_lm: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path, "mine", change(ROWS, 2, answer=-100), **LETTERS)
    results = run_tasks(gpt2_lm, [calibrated(path)], bootstrap_iters=10)
    assert results["samples"]["mine_calibration"][2][RECORD_KEY]["gold"] is None


def test_a_yaml_that_is_none_is_named_where_its_task_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\ndoc_to_text: [unclosed\n", encoding="utf-8")
    with pytest.raises(TaskError, match=r"no task 'mine_calibration'.*mine\.yaml is not YAML: .*line 3"):
        manager_of(tmp_path).match_tasks(["mine_calibration"])


def test_a_stock_task_s_labels_count_as_the_harness_counts_them() -> None:
    stock = {"task": "x_calibration", "stock_task": "hellaswag"}
    assert not configuration(stock).is_users_file


@pytest.mark.slow
def test_the_command_runs_a_user_s_task_by_its_name(tmp_path: Path) -> None:
    write_task(tmp_path, "mine", **LETTERS)
    tasks = ["--tasks", "mine_calibration", "--include_path", str(tmp_path)]
    done = CliRunner().invoke(app, ["run", "--model", "dummy", *tasks, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "|mine_calibration|" in done.stdout
    (samples,) = (tmp_path / "out").rglob("samples_mine_calibration_*.jsonl")
    assert len([json.loads(line) for line in samples.read_text().splitlines()]) == 16
