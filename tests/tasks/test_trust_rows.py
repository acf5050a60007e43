"""Rows that tell how far to trust a metric: intervals, nulls, temperature scaling; lines for many tasks at once."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from lm_eval.models.dummy import DummyLM
from lm_eval.utils import make_table
from sklearn.exceptions import UndefinedMetricWarning
from tiny import make_config, make_group, make_rows, make_tasks, run_tasks

from lm_eval_calibration import metrics
from lm_eval_calibration.metrics import CATALOG, CORE
from lm_eval_calibration.recalibration import Docs, cross_fit
from lm_eval_calibration.records import RECORD_KEY, Record, metric_arrays
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.confidences.temperature import fitted_temperature

TASKS = {"one_calibration": 26, "two_calibration": 34}
ASKED = {"calibration": {"intervals": True, "nulls": True, "temperature": True}}


@pytest.fixture(scope="module")
def run(gpt2_lm: Any) -> dict[str, Any]:
    return run_tasks(gpt2_lm, [make_group("both_calibration", make_tasks(TASKS, metadata=ASKED))], bootstrap_iters=10)


def records_of(run: dict[str, Any], *tasks: str) -> list[Record]:
    return [Record.from_dict(sample[RECORD_KEY]) for task in tasks for sample in run["samples"][task]]


ROWS = [("one_calibration", ["one_calibration"]), ("both_calibration", list(TASKS))]


@pytest.mark.parametrize(("row", "tasks"), ROWS)
@pytest.mark.parametrize("name", CORE)
def test_intervals_and_nulls_are_those_of_all_docs_of_a_task_or_group(
    name: str, row: str, tasks: list[str], run: dict[str, Any]
) -> None:
    shown, arrays = run["results"][row], metric_arrays(records_of(run, *tasks), CATALOG[name].kind, 10)
    low, high = CATALOG[name].interval(*arrays)
    assert (shown[f"{name}_low,none"], shown[f"{name}_high,none"]) == pytest.approx((low, high), abs=1e-12)
    null = CATALOG[name].null
    assert null is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # full_ece of few docs of several tokens: nan
        _, mean, _, p_value = null(*arrays)
    shown_null = shown[f"{name}_null,none"], shown[f"{name}_p,none"]
    assert shown_null == pytest.approx((mean, p_value), abs=1e-12, nan_ok=True)
    assert low - 1e-12 <= shown[f"{name},none"] <= high + 1e-12


@pytest.mark.filterwarnings("ignore:the best temperature is above")  # a model of random weights is never flat enough
@pytest.mark.parametrize(("row", "tasks"), ROWS)
def test_after_temperature_scaling_each_doc_has_a_temperature_of_other_docs(
    row: str, tasks: list[str], run: dict[str, Any]
) -> None:
    records, shown = records_of(run, *tasks), run["results"][row]
    labels = [record.gold for record in records if record.gold is not None]
    docs = Docs.of([r.log_likelihoods for r in records], labels, [r.doc_hash for r in records])
    after = cross_fit("temperature", docs).forecasts
    assert shown["brier_score_temperature,none"] == pytest.approx(
        metrics.brier_score(after.probs, after.labels), abs=1e-12
    )
    assert shown["ece_temperature,none"] == pytest.approx(metrics.ece(after.confidence, after.correct), abs=1e-12)
    assert shown["ece_temperature_stderr,none"] == pytest.approx(
        metrics.ece_stderr(after.confidence, after.correct), abs=1e-9
    )
    assert shown["temperature,none"] == pytest.approx(fitted_temperature(docs.forecasts.probs, docs.labels), rel=1e-9)
    assert "full_ece_temperature,none" not in shown  # it judges tokens, which the choices' temperature leaves alone


def test_rows_without_a_standard_error_show_none(run: dict[str, Any]) -> None:
    for row in run["results"].values():
        assert not [key for key in row if key.startswith(("ece_low_stderr", "ece_p_stderr", "temperature_stderr"))]
    assert "N/A" not in make_table(run)
    assert "N/A" not in make_table(run, "groups")
    assert make_table(run).count("|ece_low ") == 3
    assert run["configs"]["one_calibration"]["metadata"]["calibration"]["intervals"] is True


def test_rows_are_there_only_on_request(gpt2_lm: Any) -> None:
    chosen = {
        "plain": {},
        "intervals": {"intervals": True, "metrics": ["mce", "overconfidence", "aurc"]},
        "nulls": {"nulls": True, "metrics": ["aurc"]},
    }
    tasks = [
        CalibratedTask(make_config(make_rows(20), task=name, metadata={"calibration": options}))
        for name, options in chosen.items()
    ]
    results = run_tasks(gpt2_lm, tasks)["results"]
    plain, intervals, nulls = (results[name] for name in chosen)
    assert {key.split(",")[0].removesuffix("_stderr") for key in plain if "," in key} == {"acc", *CORE}
    assert intervals["mce_low,none"] <= intervals["mce,none"] <= intervals["mce_high,none"]
    assert {"overconfidence_low,none", "aurc_high,none"} <= set(intervals)
    assert "ece_p,none" in nulls
    assert "aurc_null,none" not in nulls  # it only ranks docs: there is none


def test_the_options_are_true_or_false() -> None:
    with pytest.raises(TaskError, match=r"metadata\.calibration\.intervals is 'yes', not true or false"):
        CalibratedTask(make_config(make_rows(5), metadata={"calibration": {"intervals": "yes"}}))


def test_too_few_docs_are_said_in_one_line_for_all_tasks(harness_log: Any) -> None:
    rows = make_rows(60)
    tasks = [CalibratedTask(make_config(rows[5 * i : 5 * i + 5], task=f"t{i}_calibration")) for i in range(6)]
    run_tasks(DummyLM(), tasks)
    lines = [line for line in harness_log.text.splitlines() if "too few docs to tell" in line]
    assert len(lines) == 1
    assert "6 tasks (t0_calibration, t1_calibration, t2_calibration, ...)" in lines[0]


def test_one_task_with_too_few_docs_gets_the_figures(harness_log: Any) -> None:
    run = run_tasks(DummyLM(), [CalibratedTask(make_config(make_rows(6)))])
    arrays = metric_arrays(records_of(run, "letters_calibration"), "top_label", 10)
    sentence = metrics.too_few_to_tell("ece", metrics.ece_null(*arrays), 6)
    assert f"letters_calibration: {sentence}" in harness_log.text


@pytest.mark.slow
def test_enough_docs_are_not_said_to_be_too_few(gpt2_lm: Any, harness_log: Any) -> None:
    run = run_tasks(gpt2_lm, [CalibratedTask(make_config(make_rows(200)))])
    arrays = metric_arrays(records_of(run, "letters_calibration"), "top_label", 10)
    assert metrics.too_few_to_tell("ece", metrics.ece_null(*arrays), 200) is None
    assert "calibrated one" not in harness_log.text


def test_undefined_metrics_of_many_tasks_are_one_line(gpt2_lm: Any, harness_log: Any) -> None:
    tasks = [CalibratedTask(make_config(make_rows(30)[i : i + 1], task=f"t{i}_calibration")) for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        run = run_tasks(gpt2_lm, tasks)
    lines = [line for line in harness_log.text.splitlines() if "auroc is undefined" in line]
    assert 1 <= len(lines) <= 2  # every doc is wrong, every doc is right
    assert sum(int(line.split("tasks (")[0].split()[-1]) if "tasks (" in line else 1 for line in lines) == 8
    assert all(math.isnan(row["auroc,none"]) for row in run["results"].values())


def test_a_broken_label_and_few_docs_leave_temperature_as_it_is(gpt2_lm: Any, harness_log: Any) -> None:
    rows = make_rows(12)
    rows[3]["answer"] = -100
    task = CalibratedTask(make_config(rows, metadata={"calibration": {"temperature": True}}))
    shown = run_tasks(gpt2_lm, [task])["results"]["letters_calibration"]
    assert shown["ece_temperature,none"] == pytest.approx(shown["ece,none"], abs=1e-12)
    assert np.isfinite(shown["temperature,none"])
    assert "left as it is: fewer than 20 docs to fit on" in harness_log.text
