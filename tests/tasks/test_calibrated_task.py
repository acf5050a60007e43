import copy
import itertools
import json
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import handle_non_serializable, make_table
from scripted import FixedLM, by_length
from tiny import make_config, make_rows, run_tasks

from lm_eval_calibration import __version__, metrics
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Record, metric_arrays
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.choices import ChoiceTask
from lm_eval_calibration.tasks.options import Options

CORE = ("brier_score", "ece", "ace", "full_ece", "auroc")
NAME = "letters_calibration"


def calibrated(rows: list[dict[str, Any]] | None = None, **overrides: Any) -> CalibratedTask:
    config = make_config(rows or make_rows(), **overrides)
    config.pop("metric_list") if "metric_list" not in overrides else None
    return CalibratedTask({**config, "metric_list": overrides.get("metric_list", [{"metric": "acc"}])})


def values(results: dict[str, Any], task: str = NAME) -> dict[str, Any]:
    return {key.removesuffix(",none"): value for key, value in results["results"][task].items() if "," in key}


def records(results: dict[str, Any], task: str = NAME) -> list[Record]:
    return [Record.from_dict(sample[RECORD_KEY]) for sample in results["samples"][task]]


# --- the numbers ---------------------------------------------------------------------------------------------------


def naive_metrics(lm: Any, task: CalibratedTask, n_bins: int = 10) -> dict[str, float]:
    """All core metrics from raw full-vocabulary float64 logits, written from the definitions with loops."""
    import torch

    probs, golds, positions = [], [], []
    for doc in task.eval_docs:
        logls = []
        for k, choice in enumerate(task.doc_to_choice(doc)):
            context, tokens = lm._encode_pair(task.doc_to_text(doc), f" {choice}")
            with torch.no_grad():
                if lm.backend == "causal":
                    every = lm.model(torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1]
                else:
                    every = lm.model(input_ids=torch.tensor([context]), labels=torch.tensor([tokens])).logits[0]
            logits = every.double().numpy()
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            logls.append(sum(math.log(p[t, token]) for t, token in enumerate(tokens)))
            if k == doc["answer"]:
                positions += [(p[t], token) for t, token in enumerate(tokens)]
        weights = [math.exp(x - max(logls)) for x in logls]
        probs.append([w / sum(weights) for w in weights])
        golds.append(doc["answer"])
    confidence = [max(p) for p in probs]
    correct = [int(p.index(max(p)) == y) for p, y in zip(probs, golds, strict=True)]

    def bin_of(p: float) -> int:
        return max(m for m in range(n_bins) if m / n_bins <= p)

    def gap(forecasts: list[tuple[float, int]], weight: int) -> float:
        sums = [0.0] * n_bins
        for p, hit in forecasts:
            sums[bin_of(p)] += hit - p
        return sum(map(abs, sums)) / weight

    pairs = [
        (c, d)
        for (c, h), (d, g) in itertools.product(zip(confidence, correct, strict=True), repeat=2)
        if h == 1 and g == 0
    ]
    class_errors = []
    for k in range(max(map(len, probs))):
        having = sorted((p[k], int(y == k)) for p, y in zip(probs, golds, strict=True) if len(p) > k)
        ranges = [r for r in np.array_split(np.array(having), n_bins) if len(r)]
        class_errors.append(sum(abs(r[:, 1].mean() - r[:, 0].mean()) for r in ranges) / len(ranges))
    return {
        "acc": sum(correct) / len(correct),
        "brier_score": sum(
            sum((p_k - (k == y)) ** 2 for k, p_k in enumerate(p)) for p, y in zip(probs, golds, strict=True)
        )
        / len(probs),
        "ece": gap(list(zip(confidence, correct, strict=True)), len(probs)),
        "ace": sum(class_errors) / len(class_errors),
        "full_ece": gap([(q, int(k == y)) for p, y in positions for k, q in enumerate(p)], len(positions)),
        "auroc": sum(1.0 if c > d else 0.5 if c == d else 0.0 for c, d in pairs) / len(pairs),
    }


@pytest.mark.parametrize(("model", "n_bins"), [("gpt2_lm", 10), ("gpt2_lm", 15), ("t5_lm", 10)])
def test_every_metric_equals_a_plain_computation_from_raw_logits(
    model: str, n_bins: int, request: pytest.FixtureRequest
) -> None:
    lm = request.getfixturevalue(model)
    task = calibrated(metadata={"calibration": {"n_bins": n_bins}})
    found = values(run_tasks(lm, [task], bootstrap_iters=10))
    expected = naive_metrics(lm, task, n_bins)
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
        assert found[f"{name}_stderr"] > 0, name


@pytest.mark.parametrize("num_fewshot", [0, 3])
def test_accuracy_equals_stock_doc_by_doc(gpt2_lm: Any, num_fewshot: int) -> None:
    rows = make_rows()
    stock_metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]
    stock = ConfigurableTask(config=make_config(rows, task="letters", metric_list=stock_metrics))
    ours = calibrated(rows, metric_list=stock_metrics)
    results = run_tasks(gpt2_lm, [stock, ours], num_fewshot=num_fewshot)
    for a, b in zip(results["samples"]["letters"], results["samples"][NAME], strict=True):
        assert (a["acc"], a["acc_norm"], a["doc_id"]) == (b["acc"], b["acc_norm"], b["doc_id"])
        assert a["arguments"] == b["arguments"]
    theirs = values(results, "letters")
    assert {key: values(results)[key] for key in theirs} == theirs
    assert results["n-shot"] == {"letters": num_fewshot, NAME: num_fewshot}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_has_all_six_with_arrows_and_errors(gpt2_lm: Any) -> None:
    table = make_table(run_tasks(gpt2_lm, [calibrated()], bootstrap_iters=10))
    for name, arrow in {
        "acc": "↑",
        "auroc": "↑",
        "ace": "↓",
        "brier_score": "↓",
        "ece": "↓",
        "full_ece": "↓",
    }.items():
        (row,) = [cells for cells in map(cells_of, table.splitlines()) if name in cells]
        assert arrow in row
        assert row[-2] == "±"
        assert float(row[-1]) > 0
    assert len(table.strip().splitlines()) == 2 + 6


# --- the record ----------------------------------------------------------------------------------------------------


def test_the_log_holds_everything_once(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [calibrated()])
    line = json.loads(json.dumps(results["samples"][NAME][7], default=handle_non_serializable))
    record = line[RECORD_KEY]
    assert {name: line[name] for name in CORE} == dict.fromkeys(CORE, "see calibration")
    assert not [key for key in line if key.endswith("_stderr")]
    assert (record["version"], record["definitions"], record["kind"]) == (1, 1, "multiple_choice")
    for key in ("doc_id", "doc_hash", "prompt_hash"):
        assert record[key] == line[key]
    assert record["log_likelihoods"] == [float(answer[0]) for (answer,) in line["resps"]]
    assert record["gold"] == line["doc"]["answer"]
    assert record["correct"] == line["acc"]
    assert record["vocab_size"] == 258
    assert record["certificate"]["backend"] == "HFLM"
    assert record["certificate"]["distributions"] == "exact"
    assert record["certificate"]["dtype"] == "float32"
    assert record["certificate"]["versions"]["lm-eval"].startswith("0.4.")
    # The gold choice's own tokens, and nothing under 0.05.
    assert sum(record["log_probs"]) == pytest.approx(record["log_likelihoods"][record["gold"]], abs=1e-5)
    weights = np.exp(record["log_likelihoods"])
    assert record["confidence"] == pytest.approx(weights.max() / weights.sum(), rel=1e-12)
    assert min(itertools.chain(*record["large_probs"])) >= 0.05


def test_metrics_can_be_computed_again_from_the_log(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [calibrated()])
    logged = [Record.from_dict(json.loads(json.dumps(s[RECORD_KEY]))) for s in results["samples"][NAME]]
    for name in CORE:
        metric = metrics.CATALOG[name]
        again = metric.value(*metric_arrays(logged, metric.kind, 10))
        assert again == values(results)[name]
    other_bins = metrics.full_ece_from_gap_sums(*metric_arrays(logged, "full_vocabulary", 20))
    assert other_bins == pytest.approx(values(run_tasks(gpt2_lm, [calibrated(
        metadata={"calibration": {"n_bins": 20}})]))["full_ece"], abs=1e-12)  # fmt: skip


def test_more_than_20_bins_keep_smaller_probabilities(gpt2_lm: Any) -> None:
    task = calibrated(metadata={"calibration": {"n_bins": 50}})
    results = run_tasks(gpt2_lm, [task])
    assert 0.02 <= min(p for r in records(results) for position in r.large_probs for p in position) < 0.05
    assert values(results)["full_ece"] == pytest.approx(naive_metrics(gpt2_lm, task, 50)["full_ece"], abs=1e-5)


def test_samples_carry_their_true_doc_ids(gpt2_lm: Any) -> None:
    everything = {record.doc_id: record for record in records(run_tasks(gpt2_lm, [calibrated()]))}
    # The harness itself logs other ids for unsorted ones: it numbers them in the order given, not the data's.
    for record in records(run_tasks(gpt2_lm, [calibrated()], samples={NAME: [11, 3, 5]})):
        assert record.doc_hash == everything[record.doc_id].doc_hash
        assert record.doc_id in (3, 5, 11)


# --- shapes of tasks ------------------------------------------------------------------------------------------------


def test_string_gold(gpt2_lm: Any) -> None:
    rows = make_rows()
    by_text = [{**row, "answer": row["choices"][row["answer"]]} for row in rows]
    assert values(run_tasks(gpt2_lm, [calibrated(by_text)])) == values(run_tasks(gpt2_lm, [calibrated(rows)]))


def test_numpy_gold(gpt2_lm: Any) -> None:
    task = calibrated(doc_to_target=lambda doc: np.int64(doc["answer"]))
    assert values(run_tasks(gpt2_lm, [task])) == values(run_tasks(gpt2_lm, [calibrated()]))


def test_multiple_inputs(gpt2_lm: Any) -> None:
    rows = [{"sentences": [f"{a} eats", f"{b} eats"], "right": i % 2} for i, (a, b) in enumerate(["ab", "cd", "ef"])]
    task = calibrated(rows, doc_to_text="right", doc_to_choice="sentences", doc_to_target="{{'an apple'}}")
    results = run_tasks(gpt2_lm, [task])
    assert [record.gold for record in records(results)] == [0, 1, 0]
    assert {len(record.log_probs) for record in records(results)} == {len("an apple") + 1}
    assert [line["prompt_hash"] for line in results["samples"][NAME]] == [r.prompt_hash for r in records(results)]
    assert [s["acc"] for s in results["samples"][NAME]] == [r.correct for r in records(results)]


def test_mutual_information_s_extra_requests_are_no_choices(gpt2_lm: Any) -> None:
    chosen = [{"metric": "acc"}, {"metric": "acc_mutual_info"}]
    rows = make_rows(10)
    stock = {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}
    results = run_tasks(gpt2_lm, [calibrated(rows, metric_list=[chosen[0], stock])])
    assert "acc_mutual_info" in values(results)
    assert [len(r.log_likelihoods) for r in records(results)] == [len(row["choices"]) for row in rows]


@pytest.mark.parametrize("broken", [-100, 9, "no such choice"])
def test_a_broken_label_is_in_acc_and_in_no_calibration_metric(
    broken: Any, gpt2_lm: Any, harness_log: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(12)
    if isinstance(broken, str):
        rows = [{**row, "answer": row["choices"][row["answer"]]} for row in rows]
    sound = values(run_tasks(gpt2_lm, [calibrated(rows)]))
    name = f"broken{broken}_calibration".replace(" ", "_")
    results = run_tasks(gpt2_lm, [calibrated([*rows, {**rows[0], "answer": broken}], task=name)])
    found = values(results, name)
    assert {key: found[key] for key in CORE} == {key: sound[key] for key in CORE}
    assert found["acc"] == pytest.approx(sound["acc"] * 12 / 13)
    assert records(results, name)[12].gold is None
    assert f"{name}: 1 of 13 docs have a gold label outside their choices (docs 12)" in harness_log.text


def test_only_broken_labels_are_nan_with_the_reason(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "answer": "no such choice"} for row in make_rows(3)]
    found = values(run_tasks(gpt2_lm, [calibrated(rows, task="all_broken_calibration")]), "all_broken_calibration")
    assert all(math.isnan(found[name]) for name in CORE)
    assert "all_broken_calibration: ece is undefined: no doc has a sound gold label" in harness_log.text


def test_one_doc(gpt2_lm: Any) -> None:
    found = values(run_tasks(gpt2_lm, [calibrated(make_rows(1))], bootstrap_iters=10))
    assert {found[f"{name}_stderr"] for name in ("acc", *CORE)} == {"N/A"}
    assert math.isnan(found["auroc"])
    assert found["ece"] > 0


def test_one_class_is_nan_with_the_reason(harness_log: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "choices": ["a", "b", "c"], "answer": 0} for row in make_rows(6)]
    lm = FixedLM(lambda _context, continuation: -float(ord(continuation[1])))  # always surest of "a": always right
    name = "one_class_calibration"
    results = run_tasks(lm, [calibrated(rows, task=name)])
    assert {record.correct for record in records(results, name)} == {1}
    assert math.isnan(values(results, name)["auroc"])
    assert f"{name}: auroc is undefined" in harness_log.text
    assert f"{name}: ace means little here" in harness_log.text


def test_a_broken_first_label_names_the_doc() -> None:
    with pytest.raises(TaskError, match="letters_calibration, doc 0: doc_to_target gives 17; the choices are 0 to 1"):
        calibrated([{**row, "answer": 17} for row in make_rows(3)])


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_extended_metrics_on_request(gpt2_lm: Any) -> None:
    extended = [name for name in metrics.CATALOG if name not in CORE]
    results = run_tasks(gpt2_lm, [calibrated(metadata={"calibration": {"metrics": extended}})], bootstrap_iters=0)
    found, logged = values(results), records(results)
    assert set(extended) <= set(found)
    confidence = np.array([record.confidence for record in logged])
    correct = np.array([record.correct for record in logged])
    assert found["mce"] == metrics.mce(confidence, correct)
    assert found["overconfidence"] == pytest.approx(confidence.mean() - correct.mean(), abs=1e-12)
    row = next(line for line in make_table(results).splitlines() if "|overconfidence" in line)
    assert "↑" not in row
    assert "↓" not in row


def test_configs_carry_the_definitions(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [calibrated(metadata={"version": 7, "calibration": {"n_bins": 15}})])
    found = results["configs"][NAME]["metadata"]["calibration"]
    assert found == {"definition_version": 1, "version": __version__, **Options(n_bins=15).to_dict()}
    assert (found["n_bins"], found["metrics"], found["confidence"], found["shared_prefixes"]) == (
        15,
        [],
        "summed",
        True,
    )
    assert results["versions"][NAME] == 7
    listed = [entry["metric"] for entry in results["configs"][NAME]["metric_list"]]
    assert listed == ["acc", *CORE]


@pytest.mark.parametrize("given", [[True, True], [True, False], [False, True]])
def test_beginnings_are_shared_by_all_tasks_of_a_run_or_by_none(given: list[bool], gpt2_lm: Any) -> None:
    tasks = [
        calibrated(task=f"t{i}_calibration", metadata={"calibration": {"shared_prefixes": shares}})
        for i, shares in enumerate(given)
    ]
    results = run_tasks(gpt2_lm, tasks, num_fewshot=3, limit=30)
    found = {r.certificate["shared_prefixes"] for task in tasks for r in records(results, task.task_name)}
    assert found == {all(given)}


def test_metric_list_chooses(gpt2_lm: Any) -> None:
    found = values(run_tasks(gpt2_lm, [calibrated(metric_list=[{"metric": "acc"}, {"metric": "mce"}])]))
    assert set(found) == {"acc", "acc_stderr", "mce", "mce_stderr"}


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (
            {"n_bin": 5},
            r"x: metadata\.calibration has no option 'n_bin' \(did you mean n_bins\?\); there are n_bins, metrics",
        ),
        ({"shared_prefixes": "no"}, r"shared_prefixes is 'no', not true or false"),
        ({"n_bins": 0}, r"x: metadata\.calibration\.n_bins is 0, not a whole number from 1 to 100"),
        ({"n_bins": True}, "n_bins is True"),
        ({"n_bins": 101}, "n_bins is 101"),
        ({"n_bins": "15"}, "n_bins is '15'"),
        (
            {"metrics": ["eec"]},
            r"metadata\.calibration\.metrics has 'eec' \(did you mean ece\?\); there are brier_score, ece",
        ),
        ({"metrics": 5}, r"metadata\.calibration\.metrics is 5, not a list of names"),
        ({"metrics": None}, r"metadata\.calibration\.metrics is None, not a list of names"),
        ({"metrics": [["mce"]]}, r"metadata\.calibration\.metrics has \['mce'\]"),
        (5, r"metadata\.calibration is 5, not a mapping"),
    ],
)
def test_bad_options_name_the_place_and_the_value(calibration: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        calibrated(task="x", metadata={"calibration": calibration})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"output_type": "loglikelihood"}, "x can't be calibrated: its output_type is 'loglikelihood'"),
        ({"process_results": len}, "x can't be calibrated: it has a process_results of its own"),
        ({"doc_to_image": "image"}, "x can't be calibrated: it shows images or audio"),
        ({"doc_to_choice": None}, "x can't be calibrated: it has no doc_to_choice"),
        (
            {"doc_to_target": "{{[0, 1]}}"},
            r"x, doc 0 \(and docs 1, 2, 3\): doc_to_target gives several gold answers, \[0, 1\]; calib",
        ),
        ({"metric_list": [{"metric": "acc"}, {"metric": "eec"}]}, "x: metric_list has 'eec'"),
        ({"stock_task": "mmlu_anatomyy"}, r"no task named 'mmlu_anatomyy'; the nearest are mmlu_anatomy"),
    ],
)
def test_what_can_t_be_calibrated_says_why(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        CalibratedTask({**make_config(make_rows(4), task="x"), **overrides})


def test_no_network_and_no_cache_says_what_to_do(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        TaskError,
        match=r"x: the data set no/such_data \(anatomy\) can't be loaded: .* Without network, run once",
    ):
        CalibratedTask({"task": "x", "stock_task": "mmlu_anatomy", "dataset_path": "no/such_data"})


# --- how the harness may be run -----------------------------------------------------------------------------------


def test_predict_only_returns_the_record_alone(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [calibrated()], predict_only=True)
    assert len(records(results)) == 40
    assert set(values(results)) == {"bypass", "bypass_stderr"}


@pytest.mark.parametrize("iterations", [0, None, -1])
def test_no_bootstrap_no_standard_errors(iterations: int | None, gpt2_lm: Any) -> None:
    found = values(run_tasks(gpt2_lm, [calibrated()], bootstrap_iters=iterations))
    assert {found[f"{name}_stderr"] for name in ("acc", *CORE)} == {"N/A"}
    assert all(isinstance(found[name], float) for name in CORE)


@pytest.mark.parametrize(("log_samples", "said"), [(True, False), (False, True)])
def test_says_what_is_lost_without_samples(
    log_samples: bool, said: bool, gpt2_lm: Any, harness_log: pytest.LogCaptureFixture
) -> None:
    with_both = run_tasks(gpt2_lm, [calibrated()], log_samples=log_samples)
    assert ("Samples are not logged" in harness_log.text) == said
    assert values(with_both)["ece"] > 0


def test_results_survive_copies_pickle_and_json(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [calibrated()])
    found = results["results"]
    assert copy.deepcopy(found) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert json.loads(json.dumps(found)) == found
    assert type(copy.deepcopy(found)[NAME]["ece,none"]) is float


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_batch_size_changes_nothing(byte_tokenizer: Any, gpt2_lm: Any, batch_size: Any) -> None:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=gpt2_lm.model,
        tokenizer=byte_tokenizer,
        backend="causal",
        device="cpu",
        batch_size=batch_size,
    )
    one, other = values(run_tasks(gpt2_lm, [calibrated()])), values(run_tasks(lm, [calibrated()]))
    assert other == pytest.approx(one, abs=1e-5)


def test_bfloat16_accuracy_is_stock_s(byte_tokenizer: Any) -> None:
    from lm_eval.models.huggingface import HFLM
    from tiny import make_gpt2

    lm = HFLM(pretrained=make_gpt2(byte_tokenizer).bfloat16(), tokenizer=byte_tokenizer, device="cpu", batch_size=4)
    results = run_tasks(lm, [ConfigurableTask(config=make_config(make_rows(), task="letters")), calibrated()])
    assert values(results)["acc"] == values(results, "letters")["acc"]
    assert all(math.isfinite(values(results)[name]) for name in CORE)
    assert records(results)[0].certificate["dtype"] == "bfloat16"


def test_a_backend_without_distributions_has_no_full_ece() -> None:
    results = run_tasks(FixedLM(by_length), [calibrated()])
    found = values(results)
    assert {line["full_ece"] for line in results["samples"][NAME]} == {"unavailable"}
    assert {"acc", "brier_score", "ece", "ace", "auroc"} <= set(found)
    assert not [name for name in found if "full_ece" in name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_doc_without_finite_log_likelihoods_is_left_out_and_all_is_logged(
    value: float, harness_log: pytest.LogCaptureFixture
) -> None:
    def score(context: str, continuation: str) -> float:
        return value if "bb?" in context else by_length(context, continuation)

    results = run_tasks(FixedLM(score), [calibrated()])
    found, lines = records(results), results["samples"][NAME]
    broken = [i for i, record in enumerate(found) if not record.has_likelihood]
    assert len(found) == len(make_rows())
    assert 0 < len(broken) < len(found)
    assert all(found[i].correct is None for i in broken)
    listed = ", ".join(map(str, broken[:10])) + (", ..." if broken[10:] else "")
    message = f"{len(broken)} of {len(found)} docs have no finite log-likelihoods of their choices (docs {listed})"
    assert message in harness_log.text
    without = run_tasks(FixedLM(by_length), [calibrated([row for i, row in enumerate(make_rows()) if i not in broken])])
    for name in ("ece", "brier_score", "auroc"):
        assert values(results)[name] == values(without)[name]
    text = json.dumps([line[RECORD_KEY] for line in lines], allow_nan=False)
    assert [Record.from_dict(data) for data in json.loads(text)] == found


def test_an_impossible_choice_has_probability_zero() -> None:
    lm = FixedLM(lambda _, continuation: -float("inf") if len(continuation) == 2 else -1.0)
    rows = [row for row in make_rows() if len({len(choice) for choice in row["choices"]}) > 1]
    results = run_tasks(lm, [calibrated(rows)])
    assert min(p for record in records(results) for p in record.probs) == 0.0
    again = Record.from_dict(json.loads(json.dumps(results["samples"][NAME][0][RECORD_KEY], allow_nan=False)))
    assert again == records(results)[0]


def test_no_possible_choice_anywhere_is_undefined(harness_log: pytest.LogCaptureFixture) -> None:
    results = run_tasks(FixedLM(lambda *_: -float("inf")), [calibrated()])
    assert len(records(results)) == len(make_rows())
    assert math.isnan(values(results)["ece"])
    assert "ece is undefined: no doc has finite log-likelihoods" in harness_log.text


def test_a_log_with_no_log_likelihood_is_read_as_a_doc_left_out() -> None:
    data = records(run_tasks(FixedLM(by_length), [calibrated()]))[0].to_dict()
    record = Record.from_dict({**data, "log_likelihoods": [None] * len(data["log_likelihoods"])})
    assert (record.confidence, record.correct) == (None, None)
    assert np.isnan(record.probs).all()


def test_cached_requests_are_those_of_our_request_type(
    gpt2_lm: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    fresh = values(run_tasks(gpt2_lm, [calibrated()], cache_requests=True))
    assert list(tmp_path.iterdir())
    other_bins = calibrated(metadata={"calibration": {"n_bins": 20}})
    monkeypatch.setattr(ChoiceTask, "construct_requests", None)  # the cache is read, nothing is built
    assert values(run_tasks(gpt2_lm, [calibrated()], cache_requests=True)) == fresh
    with_20 = values(run_tasks(gpt2_lm, [other_bins], cache_requests=True))
    assert with_20["full_ece"] != fresh["full_ece"]  # n_bins is no part of a request


def test_cached_requests_of_other_docs_are_refused(gpt2_lm: Any, tmp_path: Any, monkeypatch: Any) -> None:
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    run_tasks(gpt2_lm, [calibrated(make_rows(ragged=False))], cache_requests=True)
    with pytest.raises(TaskError, match="letters_calibration doc 3: the cached requests belong to another doc"):
        run_tasks(gpt2_lm, [calibrated(make_rows(ragged=False))], cache_requests=True, samples={NAME: [3, 7]})


def test_reasons_are_said_in_every_run_once(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "answer": 0} for row in make_rows(5)]
    for _ in range(2):
        harness_log.clear()
        run_tasks(gpt2_lm, [calibrated(rows)])
        assert harness_log.text.count("ace means little here") == 1


def test_standard_errors_use_the_task_s_bins(gpt2_lm: Any) -> None:

    results = run_tasks(gpt2_lm, [calibrated(metadata={"calibration": {"n_bins": 15}})], bootstrap_iters=10)
    arrays = metric_arrays(records(results), "top_label", 15)
    assert values(results)["ece_stderr"] == metrics.ece_stderr(*arrays, n_bins=15)
    assert values(results)["ece_stderr"] != metrics.ece_stderr(*arrays, n_bins=10)


def test_somebody_s_bug_is_not_taken_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_calibration.tasks.aggregation import MetricStatistic

    def buggy(confidence: Any, correct: Any, n_bins: int) -> float:
        return float(np.log(np.zeros(1))[0])

    record = ChoicesRecord(task="t", doc_id=0, doc_hash="", prompt_hash="", log_likelihoods=(-1.0, -2.0), gold=0)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        MetricStatistic(replace(metrics.CATALOG["ece"], value=buggy))([record])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_split": "empty"}, "x: the split 'empty' that is evaluated has no docs"),
        ({"task": None}, "needs a name under 'task'"),
    ],
)
def test_nothing_to_evaluate(change: dict[str, Any], message: str) -> None:
    config = make_config(make_rows(4), task="x")
    splits = config["custom_dataset"]
    config["custom_dataset"] = lambda **o: {**splits(**o), "empty": splits(**o)["test"].select([])}
    with pytest.raises(TaskError, match=message):
        CalibratedTask({**config, **change})


def test_the_harness_s_table_logger_finds_every_metric() -> None:
    from lm_eval.loggers.wandb_logger import WandbLogger

    results = run_tasks(FixedLM(by_length), [calibrated()])
    frame = WandbLogger._generate_dataset(None, results["samples"][NAME], results["configs"][NAME])
    assert set(CORE) <= set(frame.columns)


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_calibration.tasks import options

    monkeypatch.setattr(options, "find_spec", lambda name: None)
    for given in ({"metadata": {"calibration": {"metrics": ["smece"]}}}, {"metric_list": [{"metric": "smece"}]}):
        with pytest.raises(TaskError, match=r"has smece, which needs: pip install 'lm-eval-calibration\[smece\]'"):
            calibrated(**given)


def test_options_on_the_command_are_checked_before_the_model_is_loaded() -> None:
    with pytest.raises(TaskError, match=r"--metadata: metadata\.calibration\.n_bins is 500"):
        CalibrationTaskManager(metadata={"calibration": {"n_bins": 500}})
