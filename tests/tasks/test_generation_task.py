"""Generation tasks: stock texts and metrics, and calibration of the answers beside them."""

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_tasks import EXACT, adds, make_config, make_sums, options, run
from lm_eval.models.huggingface import HFLM
from scripted import Scripted, TextsOnly
from tiny import run_tasks

from lm_eval_calibration import metrics
from lm_eval_calibration.records import metric_arrays, read_records
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.configuration import reason_unsupported
from lm_eval_calibration.tasks.generation import GenerationTask

CONFIDENCE_METRICS = ("brier_top_label", "ece", "ace", "auroc", "skill_score")

STRICT = {"name": "strict", "filter": [{"function": "regex", "regex_pattern": r"= (\d+)"}, {"function": "take_first"}]}
LOOSE = {"name": "loose", "filter": [{"function": "regex", "regex_pattern": r"(\d+)"}, {"function": "take_first"}]}


def test_one_class_makes_the_task_of_the_stock_task_s_kind() -> None:
    assert type(CalibratedTask(make_config())) is GenerationTask


def test_stock_texts_and_metrics_are_unchanged(gpt2_lm: HFLM) -> None:
    from lm_eval.api.task import ConfigurableTask

    config = make_config(filter_list=[STRICT, LOOSE])
    stock = run_tasks(gpt2_lm, [ConfigurableTask(config={**config, "task": "sums"})])
    results, samples, records = run(gpt2_lm, config)
    for ours, theirs in zip(samples, stock["samples"]["sums"], strict=True):
        assert [str(text) for text in ours["resps"][0]] == theirs["resps"][0]
        assert ours["filtered_resps"][0] == theirs["filtered_resps"][0]
        assert (ours["filter"], ours["exact_match"], ours["doc_id"]) == tuple(
            theirs[key] for key in ("filter", "exact_match", "doc_id")
        )
    for key in ("exact_match,strict", "exact_match,loose", "exact_match_stderr,strict"):
        assert results[key] == stock["results"]["sums"][key]
    assert len(records) == 12
    assert all(record.generation.token_log_probs for record in records)


def test_metrics_are_those_of_the_records(gpt2_lm: HFLM, tmp_path: Path) -> None:
    # A target that tiny models hit now and then: the first character of what they write.
    texts = gpt2_lm.generate_until([_request(row["question"]) for row in make_sums()])
    rows = [
        {**row, "answer": text if i % 3 else "no"} for i, (row, text) in enumerate(zip(make_sums(), texts, strict=True))
    ]
    results, samples, records = run(gpt2_lm, make_config(rows), bootstrap_iters=10)
    correct = [int(i % 3 != 0) for i in range(12)]
    assert [record.correct for record in records] == correct
    confidence = [np.exp(record.generation.token_log_probs).mean() for record in records]
    for name in CONFIDENCE_METRICS:
        metric = metrics.GENERATION_CATALOG[name]
        assert results[f"{name},none"] == pytest.approx(metric.value(confidence, correct), abs=1e-12)
        assert results[f"{name}_stderr,none"] == pytest.approx(metric.stderr(confidence, correct), abs=1e-12)
    assert results["ace,none"] == pytest.approx(metrics.ace_one_class(confidence, correct), abs=1e-12)
    assert results["acc,none"] == results["exact_match,none"] == pytest.approx(8 / 12)
    assert "brier_score,none" not in results
    gaps, n = metric_arrays(records, "full_vocabulary", 10)
    assert results["full_ece,none"] == pytest.approx(metrics.full_ece_from_gap_sums(gaps, n), abs=1e-12)
    assert n.tolist() == [len(f" {row['answer']}".encode()) for row in rows]  # the reference, with its delimiter
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(json.dumps(line, default=str) for line in samples), encoding="utf-8")
    assert list(read_records(path)) == records


def _request(prompt: str) -> Any:
    from lm_eval.api.instance import Instance

    settings = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    return Instance("generate_until", {}, (prompt, settings), 0, ("t", 0, 1))


def test_the_reference_s_token_accuracy_and_full_ece() -> None:
    probability = {" ": 0.9, "1": 0.8, "0": 0.3}
    rows = [{"question": "q", "answer": "10"}, {"question": "r", "answer": "1"}]
    results, _, records = run(
        Scripted(lambda *_: "1", lambda c: probability.get(c, 0.5)), make_config(rows), bootstrap_iters=10
    )
    assert records[0].log_probs == pytest.approx(np.log([0.9, 0.8, 0.3]))
    assert results["token_accuracy,none"] == 4 / 5  # "0" has less than the other entry
    expected = metrics.token_accuracy_stderr([2, 2], [3, 2])
    assert results["token_accuracy_stderr,none"] == pytest.approx(expected, abs=1e-12)
    probs = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.8, 0.2]]
    assert results["full_ece,none"] == pytest.approx(metrics.full_ece(probs, [0] * 5), abs=1e-12)
    results, *_ = run(Scripted(lambda *_: "1"), make_config(rows, **options(reference="")))
    assert not {"full_ece,none", "token_accuracy,none"} & results.keys()
    results, _, records = run(Scripted(lambda *_: "1"), make_config(rows, **options(reference="x{{question}}")))
    assert [len(record.log_probs) for record in records] == [2, 2]


def test_the_first_filter_s_answers_are_judged_or_the_one_that_is_named() -> None:
    def script(prompt: str, _: int) -> str:
        return f"{adds(prompt)} = {int(adds(prompt)) + 1}"  # loosely right, strictly wrong

    config = make_config(filter_list=[STRICT, LOOSE])
    results, samples, records = run(Scripted(script), config)
    assert len(samples) == 24
    assert len(records) == 12
    assert {line["calibration"] for line in samples if isinstance(line["calibration"], str)} == {
        "see the line of filter strict"
    }
    assert {"ece,strict", "acc,strict", "exact_match,loose"} <= results.keys()
    assert "ece,loose" not in results
    assert results["acc,strict"] == results["exact_match,strict"] < results["exact_match,loose"] == 0.5
    results, _, records = run(Scripted(script), {**config, **options(filter="loose")})
    assert results["acc,loose"] == 0.5
    assert {record.generation.filter for record in records} == {"loose"}
    with pytest.raises(TaskError, match=r"filter is 'lose' \(did you mean loose\?\); the filters are strict, loose"):
        CalibratedTask({**config, **options(filter="lose")})


def by_hand(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"half": 0.5, "is_even": float(int(results[0]) % 2 == 0)}


def test_a_process_results_of_the_task_s_own_and_a_named_metric(harness_log: pytest.LogCaptureFixture) -> None:
    listed = [{**EXACT, "metric": "half"}, {**EXACT, "metric": "is_even"}]
    config = make_config(process_results=by_hand, metric_list=listed, **options(correct="is_even"))
    results, _, records = run(Scripted(adds), config)
    assert results["acc,none"] == results["is_even,none"]
    assert [record.correct for record in records] == [int(adds(row["question"])) % 2 == 0 for row in make_sums()]
    # A metric between right and wrong says nothing of calibration.
    results, _, records = run(Scripted(adds), make_config(process_results=by_hand, metric_list=listed))
    assert {record.correct for record in records} == {None}
    assert math.isnan(results["ece,none"])
    assert results["acc,none"] == 0.5
    assert "ece is undefined: no doc has an answer that is right or wrong" in harness_log.text
    with pytest.raises(TaskError, match=r"correct is 'is_eve' \(did you mean is_even\?\); the task has half, is_even"):
        run(Scripted(adds), make_config(process_results=by_hand, metric_list=listed, **options(correct="is_eve")))


def test_edges_are_defined_and_named(harness_log: pytest.LogCaptureFixture) -> None:
    results, _, records = run(Scripted(lambda prompt, _: "" if prompt.startswith("1") else "wrong"), make_config())
    assert [record.confidence is None for record in records] == [str(i).startswith("1") for i in range(12)]
    assert "3 of 12 generated answers are empty (docs 1, 10, 11) and have no confidence" in harness_log.text
    assert results["acc,none"] == 0.0  # they count there
    assert results["ece,none"] == pytest.approx(0.5)
    assert math.isnan(results["auroc,none"])
    assert math.isnan(results["skill_score,none"])
    assert "auroc is undefined" in harness_log.text
    results, *_ = run(Scripted(lambda *_: ""), make_config())
    assert math.isnan(results["ece,none"])
    assert "ece is undefined: no doc has a confidence" in harness_log.text
    rows = [{**row, "answer": ""} for row in make_sums(3)]
    results, _, records = run(Scripted(adds), make_config(rows))
    assert math.isnan(results["full_ece,none"])
    assert math.isnan(results["token_accuracy,none"])
    assert "full_ece is undefined: no doc has a token of a reference answer" in harness_log.text
    assert [record.log_probs for record in records] == [()] * 3


def test_one_doc(gpt2_lm: HFLM) -> None:
    results, *_ = run(gpt2_lm, make_config(), limit=1, bootstrap_iters=10)
    assert results["ece_stderr,none"] == "N/A"


def test_a_backend_without_probabilities_has_no_confidence(harness_log: pytest.LogCaptureFixture) -> None:
    results, _, records = run(TextsOnly(adds), make_config())
    assert results["acc,none"] == results["exact_match,none"] == 0.5
    assert not {f"{name},none" for name in (*CONFIDENCE_METRICS, "full_ece", "token_accuracy")} & results.keys()
    assert {record.confidence for record in records} == {None}
    assert records[0].to_dict()["generation"]["undefined"] == "the backend gives no token probabilities"
    assert harness_log.text.count("gives no probabilities of the tokens that it writes") == 1


class Mute(TextsOnly):
    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


def test_a_backend_that_scores_no_text_is_not_asked_for_the_reference(harness_log: pytest.LogCaptureFixture) -> None:
    results, samples, _ = run(Mute(adds), make_config())
    assert results["exact_match,none"] == run(TextsOnly(adds), make_config())[0]["exact_match,none"]
    assert "token_accuracy,none" not in results
    assert all(len(sample["arguments"]) == 1 for sample in samples)
    assert "the backend can't score given texts" in harness_log.text


def votes(prompt: str, asked: int) -> str:
    """Right three times of five where the first number is even, else one time."""
    a, b = map(int, re.findall(r"\d+", prompt))
    right = asked < 3 if a % 2 == 0 else asked == 4
    return str(a + b if right else a + b + 1 + (asked == 0))


def test_self_consistency() -> None:
    lm = Scripted(votes, lambda c: 0.25 if c in "02468" else 0.75)
    results, _, records = run(lm, make_config(**options(repeats=5)))
    assert {settings["temperature"] for settings in lm.settings} == {0.7}
    assert all(settings["do_sample"] for settings in lm.settings)
    even = np.arange(12) % 2 == 0
    assert results["acc_self_consistency,none"] == 0.5
    # Odd numbers: one vote for the first, three for the second wrong answer, one for the right one.
    assert [record.generation.majority for record in records] == [(0.6, int(e)) for e in even]
    confidence = np.full(12, 0.6)
    for name in ("ece", "ace", "brier_top_label", "auroc"):
        expected = metrics.GENERATION_CATALOG[name].value(confidence, even.astype(int))
        assert results[f"{name}_self_consistency,none"] == pytest.approx(expected, abs=1e-12)
        assert f"{name}_self_consistency_stderr,none" in results
    # The first sample is the answer of all other metrics, as the filter takes it.
    assert results["acc,none"] == results["exact_match,none"] == 0.5
    for i, record in enumerate(records):
        assert len(record.generation.samples) == 5
        assert record.generation.token_log_probs == record.generation.samples[0].token_log_probs
        assert len({sample.answer_hash for sample in record.generation.samples}) == (2 if even[i] else 3)
        for k, sample in enumerate(record.generation.samples):
            text = votes(f"{i} + {i % 3}", k)
            expected = np.log([0.25 if c in "02468" else 0.75 for c in text])
            np.testing.assert_allclose(sample.token_log_probs, expected)


def test_self_consistency_needs_no_token_probabilities() -> None:
    results, *_ = run(TextsOnly(adds), make_config(**options(repeats=3)))
    assert results["ece_self_consistency,none"] == pytest.approx(0.5)  # always sure, right half of the time


def test_samples_of_a_real_sampler_differ(gpt2_lm: HFLM) -> None:
    results, samples, records = run(gpt2_lm, make_config(**options(repeats=4)), limit=3)
    assert all(len(record.generation.samples) == 4 for record in records)
    assert len({text for line in samples for text in line["resps"][0]}) > 3
    assert records[0].certificate["sampled"] is True
    assert 0 <= results["ece_self_consistency,none"] <= 1


def test_extended_metrics_on_request_and_undefined_ones_refused() -> None:
    results, *_ = run(Scripted(adds), make_config(**options(metrics=["mce", "overconfidence"], n_bins=5)))
    assert results["overconfidence,none"] == pytest.approx(0.0)
    assert "mce,none" in results
    with pytest.raises(TaskError, match="brier_score is not defined for generated answers, which have no choices"):
        CalibratedTask(make_config(**options(metrics=["brier_score"])))


def test_predict_only_logs_the_records(gpt2_lm: HFLM) -> None:
    results, _, records = run(gpt2_lm, make_config(), predict_only=True)
    assert len(records) == 12
    assert {record.correct for record in records} == {None}
    assert all(record.confidence for record in records)
    assert "ece,none" not in results


def test_samples_chosen_by_number_have_their_doc_ids(gpt2_lm: HFLM) -> None:
    _, _, records = run(gpt2_lm, make_config(), samples={"sums_calibration": [3, 7]})
    assert [record.doc_id for record in records] == [3, 7]


def test_several_right_answers() -> None:
    rows = [{"question": f"{i} + 0", "answer": [str(i), "none"]} for i in range(4)]
    config = make_config(rows, doc_to_target="{{answer}}")
    _, _, records = run(Scripted(adds), config)
    assert [record.correct for record in records] == [1, 0, 1, 0]
    assert [len(record.log_probs) for record in records] == [2] * 4  # of the first right answer, with its delimiter


def test_what_a_rank_sends_is_plain(gpt2_lm: HFLM) -> None:
    task = CalibratedTask(make_config(filter_list=[STRICT]))
    run_tasks(gpt2_lm, [task])
    answer = task.instances[0].filtered_resps["strict"]
    assert answer.instance is task.instances[0]
    assert type(pickle.loads(pickle.dumps(answer))) is str


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"metric_list": [{"metric": "bleu", "aggregation": "bleu"}]}, "its metric bleu, aggregated by bleu, calls no"),
        ({"doc_to_image": "image"}, "it shows images or audio"),
        ({}, None),
        ({"process_results": len}, None),
    ],
)
def test_what_can_be_calibrated(config: dict[str, Any], reason: str | None) -> None:
    found = reason_unsupported({"output_type": "generate_until", **config})
    assert (found or "").startswith(reason or "")
    assert bool(found) == bool(reason)


def test_an_unknown_column_is_an_error_with_the_nearest() -> None:
    with pytest.raises(TaskError, match=r"doc_to_text is 'questoin' \(did you mean question\?\)"):
        CalibratedTask(make_config(doc_to_text="questoin"))


def test_intervals_and_nulls_stand_beside_the_metrics() -> None:
    values, samples, records = run(Scripted(adds), make_config(**options(intervals=True, nulls=True)))
    confidence, correct = metric_arrays(records, "top_label", 10)
    low, high = metrics.ece_interval(confidence, correct)
    null = metrics.ece_null(confidence, correct)
    shown = [values[f"ece_{end},none"] for end in ("low", "high", "null", "p")]
    assert shown == pytest.approx([low, high, null.mean, null.p_value], abs=1e-12)
    assert "auroc_low,none" in values
    assert not [key for key in values if key.startswith("ece_low_stderr")]
    assert {"ece_low", "ece_p"} <= samples[0].keys()


def test_options_without_effect_are_named(harness_log: pytest.LogCaptureFixture) -> None:
    run(Scripted(adds), make_config(**options(temperature=True, permute=4, n_bins=5)))
    assert "sums_calibration: calibration options permute, temperature have no effect on generated answers" in (
        harness_log.text
    )
