"""Groups are pooled over their docs: values, standard errors, nested groups, arrows."""

import copy
import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from lm_eval.utils import make_table
from scripted import FixedLM, by_length
from sklearn.exceptions import UndefinedMetricWarning
from tiny import make_config, make_group, make_rows, make_tasks, run_tasks

from lm_eval_calibration.metrics import CATALOG, CORE
from lm_eval_calibration.records import RECORD_KEY, Record, metric_arrays

SIZES = {"one_calibration": 7, "two_calibration": 19, "three_calibration": 12}


@pytest.fixture(scope="module")
def nested(gpt2_lm: Any) -> dict[str, Any]:
    one, two, three = make_tasks(SIZES)
    low, side = make_group("low_calibration", [one, two]), make_group("side_calibration", [two, three])
    return run_tasks(gpt2_lm, [make_group("top_calibration", [low, side])], bootstrap_iters=10)


def pooled(results: dict[str, Any], tasks: list[str], name: str, function: str) -> float:
    records = [Record.from_dict(s[RECORD_KEY]) for task in tasks for s in results["samples"][task]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # nan is compared as such
        return getattr(CATALOG[name], function)(*metric_arrays(records, CATALOG[name].kind, 10))


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize(
    ("group", "tasks"), [("top_calibration", list(SIZES)), ("low_calibration", ["one_calibration", "two_calibration"])]
)
def test_a_group_is_the_metric_of_all_its_docs_each_once(
    name: str, group: str, tasks: list[str], nested: dict[str, Any]
) -> None:
    row = nested["results"][group]
    assert row[f"{name},none"] == pytest.approx(pooled(nested, tasks, name, "value"), abs=1e-12)
    assert row[f"{name}_stderr,none"] == pytest.approx(pooled(nested, tasks, name, "stderr"), abs=1e-12)


def test_pooling_is_not_averaging(nested: dict[str, Any]) -> None:
    mean = np.average([nested["results"][task]["ace,none"] for task in SIZES], weights=list(SIZES.values()))
    assert abs(nested["results"]["top_calibration"]["ace,none"] - mean) > 0.001


def test_the_top_row_has_arrows_and_shots(nested: dict[str, Any]) -> None:
    assert nested["higher_is_better"]["top_calibration"] == {
        "acc": True,
        "brier_score": False,
        "ece": False,
        "ace": False,
        "full_ece": False,
        "auroc": True,
    }
    assert nested["n-shot"]["top_calibration"] == 0
    assert make_table(nested, "groups").count("↓") == 3 * 4


def test_results_hold_plain_numbers(nested: dict[str, Any]) -> None:
    for again in (
        copy.deepcopy(nested["results"]),
        pickle.loads(pickle.dumps(nested["results"])),
        json.loads(json.dumps(nested["results"])),
    ):
        assert json.dumps(again) == json.dumps(nested["results"])  # as text: nan is not equal to itself
        for row in again.values():
            ours = {type(value) for key, value in row.items() if key.endswith(",none") and not key.startswith("acc")}
            assert ours == {float}
    assert not [key for row in nested["results"].values() for key in row if "stderr_stderr" in key]


def test_one_doc_tasks(gpt2_lm: Any) -> None:
    tasks = make_tasks(dict.fromkeys([f"t{i}_calibration" for i in range(6)], 1))
    results = run_tasks(gpt2_lm, [make_group("ones_calibration", tasks)])
    names = [task.task_name for task in tasks]
    row = results["results"]["ones_calibration"]
    for name in CORE:
        assert row[f"{name},none"] == pytest.approx(pooled(results, names, name, "value"), abs=1e-12, nan_ok=True)
        assert row[f"{name}_stderr,none"] == "N/A"


@pytest.mark.parametrize("options", [{"bootstrap_iters": 0}, {"predict_only": True}])
def test_groups_of_runs_without_errors_or_metrics(options: dict[str, Any], gpt2_lm: Any) -> None:
    row = run_tasks(gpt2_lm, [make_group("all_calibration", make_tasks(SIZES))], **options)["results"][
        "all_calibration"
    ]
    found = {key.removesuffix(",none"): value for key, value in row.items() if key.endswith(",none")}
    if "predict_only" in options:
        assert found == {}
    else:
        assert {found[f"{name}_stderr"] for name in ("acc", *CORE)} == {"N/A"}
        assert all(0 < found[name] < 2 for name in CORE)


@pytest.mark.real_data
@pytest.mark.slow
def test_all_of_mmlu(hub: Any, gpt2_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    results = run_tasks(gpt2_lm, ["mmlu_calibration"], limit=2, bootstrap_iters=10)
    leaves = list(results["configs"])
    assert len(leaves) == 57
    assert len(results["groups"]) == 5
    for group in results["groups"]:
        directions = results["higher_is_better"][group]
        assert directions == {
            "acc": True,
            "auroc": True,
            **dict.fromkeys(["brier_score", "ece", "ace", "full_ece"], False),
        }
        assert results["n-shot"][group] == 0
        children = results["group_subtasks"][group]
        tasks = leaves if group == "mmlu_calibration" else children
        for name in CORE:
            row = results["results"][group]
            assert row[f"{name},none"] == pytest.approx(pooled(results, tasks, name, "value"), abs=1e-12, nan_ok=True)
            error = pooled(results, tasks, name, "stderr")
            assert row[f"{name}_stderr,none"] == pytest.approx(error, abs=1e-12, nan_ok=True)


def test_requested_metrics_reach_groups_and_one_may_ask_for_the_unweighted_mean(gpt2_lm: Any) -> None:
    tasks = make_tasks(SIZES, metadata={"calibration": {"metrics": ["mce", "overconfidence"]}})
    unweighted = [{"metric": "ece", "weight_by_size": False}]
    run = run_tasks(
        gpt2_lm,
        [make_group("mean_calibration", [make_group("more_calibration", tasks)], unweighted)],
        bootstrap_iters=10,
    )
    more, mean = (run["results"][name] for name in ("more_calibration", "mean_calibration"))
    assert more["mce,none"] == pytest.approx(pooled(run, list(SIZES), "mce", "value"), abs=1e-12)
    assert "overconfidence_stderr,none" in more
    values = np.array([run["results"][task]["ece,none"] for task in SIZES])
    errors = np.array([run["results"][task]["ece_stderr,none"] for task in SIZES])
    assert mean["ece,none"] == pytest.approx(np.mean(values), abs=1e-12)
    assert mean["ece_stderr,none"] == pytest.approx(np.sqrt((errors**2).sum()) / 3, abs=1e-12)


def test_a_metric_no_task_has_makes_no_row_and_no_noise(harness_log: pytest.LogCaptureFixture) -> None:
    results = run_tasks(FixedLM(by_length), [make_group("plain_calibration", make_tasks(SIZES))])
    assert "full_ece,none" not in results["results"]["plain_calibration"]
    assert "ece,none" in results["results"]["plain_calibration"]
    assert "no values found" not in harness_log.text


def test_tasks_of_different_bins_have_no_pooled_value(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    tasks = [make_tasks({f"b{n}_calibration": 8}, metadata={"calibration": {"n_bins": n}})[0] for n in (50, 10)]
    row = run_tasks(gpt2_lm, [make_group("bins_calibration", tasks)], bootstrap_iters=10)["results"]["bins_calibration"]
    assert np.isnan(row["ece,none"])
    assert np.isnan(row["full_ece_stderr,none"])
    assert "a group mixes tasks with n_bins 50 and 10: its ece is undefined" in harness_log.text


def test_a_group_s_list_is_respected_and_stock_groups_are_left_alone(gpt2_lm: Any) -> None:
    from lm_eval.api.task import ConfigurableTask

    stock_metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]
    stock = ConfigurableTask(config=make_config(make_rows(9), task="plain", metric_list=stock_metrics))
    listed = [{"metric": "acc"}, {"metric": "ece"}]
    groups = [
        make_group("few_calibration", make_tasks(SIZES), listed),
        make_group("stock", [stock], [{"metric": "acc"}]),
    ]
    rows = run_tasks(gpt2_lm, groups)["results"]
    names = {group: {key.split(",")[0] for key in rows[group] if "," in key} for group in ("few_calibration", "stock")}
    assert names["few_calibration"] == {"acc", "acc_stderr", "ece", "ece_stderr"}
    assert names["stock"] == {"acc", "acc_stderr"}
