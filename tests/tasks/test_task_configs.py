"""The YAMLs that we ship, against the installed harness."""

import zipfile
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_calibration.harness.stock import read_config, stock_config, stock_path
from lm_eval_calibration.harness.task_configs import task_configs, task_names
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.base import BaseTask

MMLU = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
OUTPUT_TYPES = {"code": "generate_until", "open_answers": "generate_until", "corpora": "loglikelihood_rolling"}
GROUPS = ["mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other"]


@pytest.fixture(scope="module")
def manager() -> CalibrationTaskManager:
    return CalibrationTaskManager()


def test_every_contract_name_is_there(manager: CalibrationTaskManager) -> None:
    groups, tasks = task_names()
    subjects = [load_yaml(path, resolve_func=False)["task"] for path in MMLU.glob("mmlu_*.yaml")]
    assert len(subjects) == 57
    medical = ["medqa_4options", "medmcqa", "pubmedqa"]
    code, open_answers = ["humaneval", "mbpp", "code_line_completion"], ["gsm8k", "triviaqa"]
    assert set(tasks) == {f"{name}_calibration" for name in [*subjects, *medical, *code, *open_answers, "wikitext"]}
    assert set(groups) == {f"{name}_calibration" for name in [*GROUPS, "medical", "code"]}
    assert set(groups) | set(tasks) <= set(manager.all_tasks)
    assert manager.stock_index_is_due  # looking at our own tasks read no stock index


def test_task_files_name_the_stock_task_and_nothing_of_it() -> None:
    for path in sorted(task_configs().rglob("[!_]*.yaml")):
        config = load_yaml(path, resolve_func=False)
        if "stock_task" not in config:
            assert path.stem == "code_line_completion_calibration"  # of our own
            continue
        assert set(config) <= {"task", "stock_task", "class", "tag", "metadata"}, path
        assert set(config.get("metadata", {})) <= {"calibration"}, path
        assert config["task"] == f"{config['stock_task']}_calibration" == path.stem
        stock = read_config(stock_path(config["stock_task"]), resolve=False)
        assert stock["task"] == config["stock_task"]
        assert stock["output_type"] == OUTPUT_TYPES.get(path.parent.name, "multiple_choice"), path


@pytest.mark.parametrize("name", GROUPS)
def test_groups_hold_what_the_stock_groups_hold(name: str, manager: CalibrationTaskManager) -> None:
    stock = load_yaml(MMLU / f"_{name}.yaml")
    ours = load_yaml(task_configs() / "mmlu" / f"_{name}_calibration.yaml")
    assert ours["metadata"] == stock["metadata"]
    renamed = [child.removesuffix("_tasks") + "_calibration" for child in stock["task"]]
    assert [child.removesuffix("_tasks") for child in ours["task"]] == renamed
    assert [entry["metric"] for entry in ours["aggregate_metric_list"]] == [
        "acc", "brier_score", "ece", "ace", "full_ece", "auroc",
    ]  # fmt: skip
    if name != "mmlu":
        stock_tags = {}
        for path in MMLU.glob("mmlu_*.yaml"):
            config = load_yaml(path, resolve_func=False)
            stock_tags.setdefault(config["tag"], set()).add(f"{config['task']}_calibration")
        assert manager.task_index[ours["task"][0]].tags == stock_tags[stock["task"][0]]


@pytest.mark.real_data
def test_prompts_examples_and_version_are_the_stock_task_s(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    ours = CalibratedTask({"task": "mmlu_virology_calibration", "stock_task": "mmlu_virology"})
    stock = lm_eval.api.task.ConfigurableTask(config=stock_config("mmlu_virology"))
    assert ours.VERSION == stock.VERSION == 1.0
    for task in (ours, stock):
        task.set_fewshot_seed(7)
    doc = ours.eval_docs[3]
    assert ours.fewshot_context(doc, 5) == stock.fewshot_context(doc, 5)
    assert ours.config.task_alias is None


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        pytest.param("mmlu_calibration", 57, marks=pytest.mark.slow),
        ("medical_calibration", 3),
        ("code_calibration", 3),
    ],
)
def test_groups_load(
    name: str, leaves: int, hub: Path, monkeypatch: pytest.MonkeyPatch, manager: CalibrationTaskManager
) -> None:
    monkeypatch.chdir(hub)
    loaded = manager.load([name])
    assert len(loaded["tasks"]) == leaves
    assert all(isinstance(task, BaseTask) for task in loaded["tasks"].values())


@pytest.mark.real_data
def test_options_of_the_yaml_and_of_the_command_are_merged(tmp_path: Path, hub: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(hub)
    (tmp_path / "x.yaml").write_text(
        "task: x_calibration\nstock_task: mmlu_anatomy\n"
        "class: !function lm_eval_calibration.tasks.CalibratedTask\n"
        "metadata: {calibration: {n_bins: 15}}\n",
        encoding="utf-8",
    )
    manager = CalibrationTaskManager(
        include_path=str(tmp_path), metadata={"pretrained": "m", "calibration": {"metrics": ["mce"]}}
    )
    (task,) = manager.load(["x_calibration"])["tasks"].values()
    metadata = task.config.metadata
    assert {key: metadata["calibration"][key] for key in ("n_bins", "metrics")} == {"n_bins": 15, "metrics": ["mce"]}
    assert metadata["version"] == 1.0  # the stock task's


@pytest.mark.slow
def test_a_misspelt_calibrated_task_is_named_with_its_neighbours(manager: CalibrationTaskManager) -> None:
    with pytest.raises(TaskError, match=r"no task 'mmlu_anatomi_calibration'; the nearest are mmlu_anatomy_calib"):
        manager.match_tasks(["mmlu_anatomi_calibration"])


def test_the_stock_index_is_read_when_a_stock_task_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks._index import TaskIndex

    built = []
    stock = TaskIndex.build
    monkeypatch.setattr(TaskIndex, "build", lambda self, paths: built.append(len(paths)) or stock(paths[-1:]))
    manager = CalibrationTaskManager()
    manager.match_tasks(["mmlu_stem_calibration", "mmlu_stem_calibration_tasks", "medmcqa_calibration"])
    assert built == [1]
    with pytest.raises(TaskError, match="no task 'mmlu_stem'"):  # the index that was built here has our tasks only
        manager.match_tasks(["mmlu_stem"])
    assert built == [1, 2]


def test_a_wheel_carries_the_task_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build", reason="needs hatchling (extra `dev`)")
    monkeypatch.chdir(Path(__file__).parents[2])
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = wheel.namelist()
    task_files = [name for name in names if name.startswith("lm_eval_calibration/task_configs/")]
    assert sum(not name.endswith("README.md") for name in task_files) == 57 + 5 + 3 + 1 + 1 + 4 + 2 + 1
    assert "lm_eval_calibration/py.typed" in names
    assert "lm_eval_calibration/demo/quiz/code.jsonl" in names
    assert not [name for name in names if name.startswith("tests")]
