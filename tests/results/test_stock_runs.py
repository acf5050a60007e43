"""Samples of stock runs, without our record: the same numbers as with it, or a reason why not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_runs import make_lines, stock_line, write_run

from lm_eval_calibration import load_run
from lm_eval_calibration.errors import UserError


def stock(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "calibration"} for line in lines]


def loaded(tmp_path: Path, lines: list[dict[str, Any]]) -> Any:
    return load_run(write_run(tmp_path, {"law": lines}))


def test_a_stock_run_has_the_numbers_of_ours(tmp_path: Path) -> None:
    ours, lines = make_lines("law", n=50), stock(make_lines("law", n=50))
    expected = loaded(tmp_path / "ours", ours).metrics()
    run = loaded(tmp_path / "stock", lines)
    found = run.metrics()
    for name, measured in expected.items():
        if name == "full_ece":
            assert found[name].reason == "law doc 0: no token distributions were recorded"
        else:
            assert found[name] == measured, name
    assert run.records[7].log_likelihoods == tuple(map(float, ours[7]["calibration"]["log_likelihoods"]))
    assert run.records[7].choice_lengths == (1, 1, 1, 1)
    assert run.certificates == [({"distributions": "none", "source": "samples of a stock run"}, 50)]


@pytest.mark.slow
def test_older_lines_hold_numbers_and_pairs_and_no_hashes(tmp_path: Path) -> None:
    lines = stock(make_lines("law", n=10))
    older = []
    for line in lines:
        kept = {key: value for key, value in line.items() if key not in ("doc_hash", "prompt_hash", "filter")}
        arguments = [list(request.values()) for request in line["arguments"].values()]
        resps = [[[float(answer[0][0]), False]] for answer in line["resps"]]
        older.append({**kept, "target": int(line["target"]), "arguments": arguments, "resps": resps})
    run, new = loaded(tmp_path / "old", older), loaded(tmp_path / "new", lines)
    assert repr(run.metrics()) == repr(new.metrics())  # nan is not equal to itself
    assert len({record.doc_hash for record in run.records}) == 10
    assert len(run.records[0].doc_hash) == 64


@pytest.mark.parametrize("target", ["letters", "texts", "mutual information", "ints", "inputs", "numbers"])
def test_every_way_of_naming_the_gold_choice(tmp_path: Path, target: str) -> None:
    lines, golds = stock(make_lines("law", n=30, k=2 if target == "inputs" else 4)), []
    for i, line in enumerate(lines):
        gold = int(line["target"])
        golds.append(gold)
        requests = list(line["arguments"].values())
        if target == "letters":
            line["target"] = "ABCD"[gold]
        elif target == "ints":
            line["target"] = gold
        elif target == "texts":
            texts = [f"the {j} of {i}" for j in ("first", "second", "third", "last")]
            line["target"] = texts[gold]
            for request, text in zip(requests, texts, strict=True):
                request["arg_1"] = " " + text
        elif target == "mutual information":
            line["acc_mutual_info"] = 0.0
            line["arguments"] |= {f"gen_args_{4 + j}": {"arg_0": "", "arg_1": f" {x}"} for j, x in enumerate("ABCD")}
            line["resps"] += [[["-1.0", "False"]]] * 4
        elif target == "inputs":
            line["target"] = "was tall"
            for j, request in enumerate(requests):
                request["arg_0"], request["arg_1"] = f"the {j}", " was tall"
        else:  # choices 3, 2, 1, 0: "1" is the index of "2" and the text of the third
            line["target"] = str(3 - gold)
            for j, request in enumerate(requests):
                request["arg_1"] = f" {3 - j}"
    run = loaded(tmp_path, lines)
    assert [record.gold for record in run.records] == golds
    assert [record.correct for record in run.records] == [int(line["acc"]) for line in lines]


def test_broken_labels_are_known_by_their_acc(tmp_path: Path) -> None:
    lines = stock(make_lines("law", n=10))
    lines[2] |= {"target": "-100", "acc": 0.0}
    lines[3] |= {"target": "none of them", "acc": 0.0}
    assert [record.gold is None for record in loaded(tmp_path, lines).records] == [i in (2, 3) for i in range(10)]


def test_acc_norm_is_checked_where_there_is_no_acc(tmp_path: Path) -> None:
    lines = []
    for i in range(12):
        line = stock_line(i, "Which?", [-1.0, -1.5], i % 2)
        for request, text in zip(line["arguments"].values(), (" a", " long"), strict=True):
            request["arg_1"] = text
        del line["acc"]
        lines.append(line | {"acc_norm": float(i % 2 == 1)})  # -1.5 / 4 is more than -1 / 1
    run = loaded(tmp_path / "sound", lines)
    assert [record.correct for record in run.records] == [1, 0] * 6
    lines[5]["acc_norm"] = 0.0
    with pytest.raises(UserError, match=r"line 6: acc_norm is 0, but by the log-likelihoods and the target it is 1"):
        loaded(tmp_path / "contradicts", lines)


def generated(line: dict[str, Any]) -> dict[str, Any]:
    arguments = {"gen_args_0": {"arg_0": "Write", "arg_1": {"until": ["\n"]}}}
    return {**line, "arguments": arguments, "resps": [["some text"]], "filtered_resps": ["some text"]}


def one_request(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "arguments": {"gen_args_0": line["arguments"]["gen_args_0"]}, "resps": line["resps"][:1]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (generated, r"line 5: its answers were generated, and of them only its _calibration task logs probabilities"),
        (one_request, r"line 5: 1 log-likelihoods of 1 requests: not multiple choice"),
        (lambda line: {**line, "resps": [["-12.5"]]}, r"line 5: its responses are not log-likelihoods"),
        (lambda line: {**line, "resps": line["resps"][:3]}, r"line 5: 3 log-likelihoods of 4 requests"),
        (lambda line: {**line, "resps": [[["nan", "False"]]] * 4}, r"line 5: its log-likelihoods are \[nan"),
        (lambda line: {**line, "acc": 1 - line["acc"]}, r"line 5: acc is \d, but by the log-likelihoods"),
        (lambda line: {**line, "acc": 0.4}, r"line 5: acc is 0.4, not 0 or 1: this task is scored differently"),
        (lambda line: {**line, "target": "[0, 2]"}, r"line 5: its target is a list: several gold answers"),
        (lambda line: {**line, "target": "x", "acc": None}, r"line 5: its target is none of the choices"),
    ],
)
def test_what_can_t_be_judged_says_why(tmp_path: Path, change, reason: str) -> None:
    lines = stock(make_lines("law", n=8))
    lines[4] = change(lines[4])
    folder = write_run(tmp_path, {"law": lines})
    with pytest.raises(UserError, match=rf"nothing can be read: .*samples_law_.*jsonl, {reason}"):
        load_run(folder)
    write_run(tmp_path, {"law": lines, "tax": stock(make_lines("tax", n=8))})  # beside others it is left out
    run = load_run(folder)
    assert run.tasks == ("tax",)
    assert list(run.left_out) == ["law"]


def test_where_both_ways_of_reading_would_do_nothing_is_read(tmp_path: Path) -> None:
    lines = [stock_line(i, "Which?", [-1.0, -2.0, -3.0], 1) for i in range(4)]
    for line in lines:
        for request, text in zip(line["arguments"].values(), (" 0", " 2", " 1"), strict=True):
            request["arg_1"] = text
    with pytest.raises(UserError, match="line 1: the target may be an index or a text"):
        loaded(tmp_path, lines)


def test_of_several_filters_one_counts(tmp_path: Path) -> None:
    lines = stock(make_lines("law", n=9))
    twice = [line | {"filter": name} for name in ("first", "again") for line in lines]
    folder = write_run(tmp_path / "twice", {"law": twice})
    next(folder.rglob("results_*")).unlink()  # where the harness counts docs, not lines
    run = load_run(folder)
    assert len(run) == 9
    assert repr(run.metrics()) == repr(loaded(tmp_path / "once", lines).metrics())
    assert [sample.line["filter"] for sample in run.samples] == ["first"] * 9


def test_filters_that_old_samples_don_t_tell_apart_leave_the_task_out(tmp_path: Path) -> None:
    lines = [{key: line[key] for key in line if key != "filter"} for line in stock(make_lines("law", n=9))]
    folder = write_run(tmp_path, {"law": lines + lines, "tax": lines})
    assert "(or its task has several filters" in load_run(folder, is_strict=True).left_out["law"]  # drift's way


@pytest.mark.parametrize("request_", [["Why?", {"until": []}], {"arg_0": "Why?", "arg_1": {"until": []}}])
def test_generated_answers_say_what_to_do(tmp_path: Path, request_: Any) -> None:
    line = {"doc_id": 0, "doc": {}, "target": "a", "resps": [["b"]], "filter": "none", "exact_match": 0.0}
    arguments = {"gen_args_0": request_} if isinstance(request_, dict) else [request_]
    with pytest.raises(UserError, match=r"line 1: its answers were generated, .* _calibration task"):
        loaded(tmp_path, [line | {"arguments": arguments}])


def test_the_stock_twin_of_a_calibrated_task_is_left_out(tmp_path: Path) -> None:
    ours = make_lines("law_calibration", n=9)
    run = load_run(write_run(tmp_path, {"law": stock(ours), "law_calibration": ours}))
    assert run.tasks == ("law_calibration",)
    assert run.left_out == {"law": "law_calibration is here too"}


@pytest.mark.parametrize("missing", [[0], [0, 1], range(1, 9)])
def test_a_run_of_ours_that_lacks_some_records_is_no_stock_run(tmp_path: Path, missing: Any) -> None:
    lines = make_lines("law", n=9)
    for i in missing:
        del lines[i]["calibration"]
    with pytest.raises(UserError, match=rf"line {missing[0] + 1}: no 'calibration' record"):
        loaded(tmp_path, lines)


@pytest.mark.real_data
@pytest.mark.slow
def test_a_stock_run_of_the_harness_has_the_numbers_of_ours(
    hub: Path, tmp_path: Path, gpt2_lm: Any, monkeypatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    from lm_eval_calibration.tasks import CalibrationTaskManager

    monkeypatch.chdir(hub)
    runs = {}
    for name in ("mmlu_virology", "mmlu_virology_calibration"):
        tracker = EvaluationTracker(output_path=str(tmp_path / name))
        results = simple_evaluate(
            model=gpt2_lm,
            tasks=[name],
            limit=6,
            task_manager=CalibrationTaskManager(),
            evaluation_tracker=tracker,
            log_samples=True,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, lines in samples.items():
            tracker.save_results_samples(task_name=task, samples=lines)
        runs[name] = load_run(tmp_path / name)
    stock_run, ours = runs.values()
    assert [r.gold for r in stock_run.records] == [r.gold for r in ours.records]
    assert [r.doc_hash for r in stock_run.records] == [r.doc_hash for r in ours.records]
    assert [r.prompt_hash for r in stock_run.records] == [r.prompt_hash for r in ours.records]
    logls = [np.array([r.log_likelihoods for r in run.records]) for run in (stock_run, ours)]
    np.testing.assert_allclose(logls[0], logls[1], atol=1e-3)
    assert json.loads(next((tmp_path / name).rglob("results_*.json")).read_text())["n-samples"][name]["effective"] == 6
