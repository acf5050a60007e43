"""The confidence of the final answer, and what became of each, in runs of a scripted backend."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from generation_tasks import SAYS, chain, make_config, make_sums, options, probability, run
from scripted import Scripted, TextsOnly
from tiny import run_tasks

from lm_eval_calibration import metrics
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask

FLEXIBLE = {
    "name": "flexible",
    "filter": [{"function": "regex", "regex_pattern": r"\d+", "group_select": -1}, {"function": "take_first"}],
}
NAMES = ("brier_top_label", "ece", "ace", "auroc")


def answer_of(text: str) -> list[float]:
    return [probability(c) for c in re.findall(r"is (\d+)", text)[0]]


def test_metrics_of_the_answer_s_tokens_are_those_of_their_product() -> None:
    results, _, records = run(Scripted(chain, probability), make_config(filter_list=[SAYS]), bootstrap_iters=10)
    texts = [chain(row["question"]) for row in make_sums()]
    confidence = [math.prod(answer_of(text)) for text in texts]
    correct = [record.correct for record in records]
    assert correct == [1 - i % 2 for i in range(12)]
    for name in NAMES:
        metric = metrics.GENERATION_CATALOG[name]
        assert results[f"{name}_answer,says"] == pytest.approx(metric.value(confidence, correct), abs=1e-12)
        assert results[f"{name}_answer_stderr,says"] == pytest.approx(metric.stderr(confidence, correct), abs=1e-12)
        plain = [np.mean([probability(c) for c in text]) for text in texts]
        assert results[f"{name},says"] == pytest.approx(metric.value(plain, correct), abs=1e-12)
    for record, text in zip(records, texts, strict=True):
        match = re.search(r"is (\d+)", text)
        assert match is not None
        assert record.generation.answer.span == match.span(1)
    assert results["answered,says"] == 1.0
    assert results["answered_stderr,says"] == 0.0
    assert not any("missing" in key or "truncated" in key or "tail" in key or "chain" in key for key in results)


def test_the_tail_is_an_option() -> None:
    results, _, records = run(Scripted(chain, probability), make_config(filter_list=[SAYS], **options(tail=2)))
    before = np.mean([probability("s"), probability(" ")])  # every answer stands behind "is "
    confidence, correct = np.full(12, before), [record.correct for record in records]
    for name in ("brier_top_label", "ece", "ace"):
        expected = metrics.GENERATION_CATALOG[name].value(confidence, correct)
        assert results[f"{name}_tail,says"] == pytest.approx(expected, abs=1e-12)


def test_answers_that_are_whole_texts_have_no_row_of_their_own() -> None:
    results, _, records = run(Scripted(lambda *_: "7", probability), make_config())
    assert not any("_answer" in key for key in results)
    assert records[0].generation.answer_probability == pytest.approx(probability("7"))


def test_an_answer_that_stands_nowhere_is_named(harness_log: pytest.LogCaptureFixture) -> None:
    two = [{"function": "regex", "regex_pattern": r"is (\d+|\w+)"}, {"function": "take_first"}]
    config = make_config(filter_list=[{"name": "says", "filter": two}])
    lm = Scripted(chain, probability, token_ends=lambda t: None if "3" in t else _ends(t))
    results, _, records = run(lm, config)
    without = [r.doc_id for r in records if r.generation.answer_probability is None]
    assert without
    shown = ", ".join(map(str, without))
    assert f"{len(without)} of 12 answers stand nowhere in their texts as the filter gives them" in harness_log.text
    assert f"({shown})".replace("(", "(docs ") in harness_log.text
    confidence = [r.generation.answer_probability for r in records if r.doc_id not in without]
    correct = [r.correct for r in records if r.doc_id not in without]
    assert results["ece_answer,says"] == pytest.approx(metrics.ece(confidence, correct), abs=1e-12)


def _ends(text: str) -> Any:
    return np.arange(1, len(text) + 1)


def ends_early(prompt: str, asked: int = 0) -> str:
    """Docs 0 to 11: three without an answer, one empty, one refused."""
    i = int(re.findall(r"\d+", prompt)[-2])
    return {1: "I don't know", 4: "I think it is", 6: "", 9: "I must refuse; it is 9"}.get(i, chain(prompt))


def test_what_became_of_each_answer(harness_log: pytest.LogCaptureFixture) -> None:
    lm = Scripted(ends_early, probability, finish_reason=lambda text: "length" if text.endswith("is") else "stop")
    config = make_config(filter_list=[SAYS], **options(refusal=r"\brefuse\b"))
    results, samples, records = run(lm, config, bootstrap_iters=10)
    expected = {1: "not_found", 4: "truncated", 6: "empty", 9: "refused"}
    assert [r.generation.outcome for r in records] == [expected.get(i, "answered") for i in range(12)]
    for name in ("not_found", "truncated", "empty", "refused"):
        assert results[f"{name},says"] == pytest.approx(1 / 12)
        assert results[f"{name}_stderr,says"] == pytest.approx(math.sqrt(1 / 12 * 11 / 12 / 11))
    assert results["answered,says"] == pytest.approx(8 / 12)
    assert results["acc,says"] == results["exact_match,says"]  # as stock counts
    assert "1 of 12 generated texts hold no answer that the filter finds (docs 1) and have no conf" in harness_log.text
    assert "1 of 12 generated texts are cut off before an answer (docs 4)" in harness_log.text
    assert "1 of 12 generated texts are refusals (docs 9)" in harness_log.text
    assert samples[1]["calibration"]["generation"]["answer"] == {"outcome": "not_found"}


def test_the_range_over_all_docs() -> None:
    results, _, records = run(Scripted(ends_early, probability), make_config(filter_list=[SAYS]))
    pavg = [r.generation.mean_probability for r in records]
    for label, correct_if_missing in (("missing_right", 1), ("missing_wrong", 0)):
        pairs = [
            (p, r.correct if r.generation.outcome == "answered" else correct_if_missing)
            for p, r in zip(pavg, records, strict=True)
            if p is not None  # the empty text has no token
        ]
        assert len(pairs) == 11
        for name in NAMES:
            expected = metrics.GENERATION_CATALOG[name].value(*zip(*pairs, strict=True))
            assert results[f"{name}_{label},says"] == pytest.approx(expected, abs=1e-12)
    answered = [(p, r.correct) for p, r in zip(pavg, records, strict=True) if r.generation.outcome == "answered"]
    assert results["ece,says"] == pytest.approx(metrics.ece(*zip(*answered, strict=True)), abs=1e-12)


def test_each_sample_has_its_answer_s_place() -> None:
    def script(prompt: str, asked: int) -> str:
        return "Oh. " * asked + chain(prompt) if asked < 3 else "?"

    _, samples, records = run(Scripted(script), make_config(filter_list=[SAYS], **options(repeats=4)))
    for line, record in zip(samples, records, strict=True):
        texts = line["resps"][0]
        first = record.generation.samples[0]
        assert (first.span, first.tokens) == (record.generation.answer.span, record.generation.answer.tokens)
        starts = [sample.span[0] for sample in record.generation.samples[:3]]
        assert [start - starts[0] for start in starts] == [0, 4, 8]
        for text, sample in zip(texts[:3], record.generation.samples, strict=False):
            assert sample.tokens == sample.span  # every character is a token
            assert str(text)[slice(*sample.span)] == line["filtered_resps"][0]
        assert record.generation.samples[3].span is None
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_rows_that_only_other_ranks_docs_have() -> None:
    """Rank 0 holds an answered doc, others the rest."""
    task = CalibratedTask(make_config(filter_list=[SAYS]))
    lines = run_tasks(Scripted(ends_early, probability), [task])["samples"]["sums_calibration"]
    records = [Record.from_dict(line["calibration"]) for line in lines]
    expected = set(task.statistics(records))
    assert {"not_found", "ece_missing_wrong", "ece_answer_missing_wrong"} <= expected
    run_tasks(Scripted(ends_early, probability), [task], limit=1)
    assert "not_found" not in task.statistics(records[:1])
    assert set(task.statistics(records)) == expected


def test_the_range_of_the_final_answer_s_confidence() -> None:
    """A text without an answer is sure and right, or sure and wrong: of the Brier score the ends of what it can be."""
    results, _, records = run(Scripted(ends_early, probability), make_config(filter_list=[SAYS]))
    ends = {}
    for label, correct_if_missing in (("missing_right", 1), ("missing_wrong", 0)):
        pairs = [
            (r.generation.answer_probability, r.correct)
            if r.generation.outcome == "answered"
            else (1.0, correct_if_missing)
            for r in records
        ]
        assert len(pairs) == 12
        for name in ("ece", "brier_top_label"):
            expected = metrics.GENERATION_CATALOG[name].value(*zip(*pairs, strict=True))
            assert results[f"{name}_answer_{label},says"] == pytest.approx(expected, abs=1e-12)
        assert f"auroc_answer_{label},says" not in results
        ends[label] = results[f"brier_top_label_answer_{label},says"]
    n_missing = sum(r.generation.outcome != "answered" for r in records)
    mean = results["brier_top_label_answer,says"]
    assert ends["missing_right"] == pytest.approx(mean * (12 - n_missing) / 12)
    assert ends["missing_wrong"] == pytest.approx((mean * (12 - n_missing) + n_missing) / 12)


def test_an_open_thought_is_no_answer() -> None:
    lm = Scripted(chain, probability, thought_is_open=lambda text: "!!" in text)
    results, _, records = run(lm, make_config(filter_list=[SAYS]))
    assert [r.generation.outcome == "truncated" for r in records] == [i % 3 == 2 for i in range(12)]
    assert results["truncated,says"] == pytest.approx(4 / 12)


def test_all_cut_off(harness_log: pytest.LogCaptureFixture) -> None:
    results, *_ = run(Scripted(chain, thought_is_open=True), make_config(filter_list=[SAYS]))
    assert results["answered,says"] == 0
    for name in NAMES:
        assert math.isnan(results[f"{name},says"])
    assert "ece is undefined: no doc has a confidence" in harness_log.text


def test_one_doc() -> None:
    results, *_ = run(Scripted(chain, probability), make_config(filter_list=[SAYS]), limit=1, bootstrap_iters=10)
    assert results["brier_top_label_answer,says"] == pytest.approx((1 - probability("0")) ** 2)
    assert results["answered_stderr,says"] == "N/A"


def test_a_filter_that_finds_less_than_half_of_another_is_named(harness_log: pytest.LogCaptureFixture) -> None:
    run(Scripted(lambda prompt, n: chain(prompt, n).replace(" is", "", n)), make_config(filter_list=[SAYS, FLEXIBLE]))
    assert "finds an answer in" not in harness_log.text
    lm = Scripted(lambda prompt, n: chain(prompt) if prompt.startswith("1") else "It's 7", probability)
    run(lm, make_config(filter_list=[SAYS, FLEXIBLE]))
    assert (
        "sums_calibration: the filter says, whose answers are scored, finds an answer in 3 of 12 texts, and flexible "
        "in 12: to score the latter's, set metadata.calibration.filter to flexible"
    ) in harness_log.text


def votes(prompt: str, asked: int) -> str:
    """Of ten samples six hold no answer; the other four agree but for one where the first number is odd."""
    a, b = map(int, re.findall(r"\d+", prompt)[-2:])
    if asked < 6:
        return "I don't know"
    return f"it is {a + b}" if a % 2 == 0 or asked < 9 else "it is 99"


def test_samples_without_an_answer_have_no_vote() -> None:
    results, _, records = run(Scripted(votes), make_config(filter_list=[SAYS], **options(repeats=10)))
    assert [r.generation.majority for r in records] == [(0.75 if i % 2 else 1.0, 1) for i in range(12)]
    assert results["samples_without_answer,says"] == pytest.approx(0.6)
    assert results["acc_self_consistency,says"] == 1.0
    assert results["brier_top_label_self_consistency,says"] == pytest.approx(0.25**2 / 2)
    assert math.isnan(results["auroc_entropy,says"])  # all right


def test_entropy_ranks_docs_by_how_much_samples_disagree() -> None:
    def split(prompt: str, asked: int) -> str:
        a, b = map(int, re.findall(r"\d+", prompt)[-2:])
        return f"it is {a + b}" if a % 2 == 0 and asked < 3 else f"it is {a + b + 1 + asked // 2}"

    results, _, records = run(Scripted(split), make_config(filter_list=[SAYS], **options(repeats=4)))
    disorder = [-r.generation.answer_entropy for r in records]
    correct = [r.generation.majority[1] for r in records]
    expected = np.mean(
        [
            np.mean([(x > y) + (x == y) / 2 for y, c in zip(disorder, correct, strict=True) if c == 0])
            for x, c in zip(disorder, correct, strict=True)
            if c == 1
        ]
    )
    assert results["auroc_entropy,says"] == pytest.approx(expected, abs=1e-12)


def test_equal_answers_are_decided_by_the_task_s_metric() -> None:
    number = r"is ([\d,]+)"
    says = {"name": "says", "filter": [{"function": "regex", "regex_pattern": number}, {"function": "take_first"}]}
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": [","]}
    rows = [{"question": "1000 + 0", "answer": "1000"}] * 3
    lm = Scripted(lambda _, n: ("it is 1,000", "it is 1000", "it is 7")[n % 3])
    config = make_config(rows, filter_list=[says], metric_list=[exact], **options(repeats=3))
    _, _, records = run(lm, config, limit=1)
    assert records[0].generation.majority == (pytest.approx(2 / 3), 1)
    plain = make_config(rows, filter_list=[says], **options(repeats=3))
    _, _, records = run(lm, plain, limit=1)
    assert records[0].generation.majority == (pytest.approx(1 / 3), 0)


def test_confidence_along_the_chain() -> None:
    def nats(text: str) -> Any:
        return np.linspace(1, 9, len(text)) * (1 + len(text) % 2)

    lm = Scripted(chain, probability, mean_top_k=nats)
    results, _, records = run(lm, make_config(filter_list=[SAYS], **options(chain=4)))
    of_docs = {"chain": [], "chain_lowest": [], "chain_tail": []}  # type: dict[str, list[float]]
    for row in make_sums():
        text = chain(row["question"])
        before = nats(text)[: re.search(r"is (\d+)", text).start(1)]  # type: ignore[union-attr]
        windows = [before[i : i + 4].mean() for i in range(0, len(before) - 3, 4)]
        for name, value in zip(of_docs, (before.mean(), min(windows), windows[-1]), strict=True):
            of_docs[name].append(value)
    correct = [r.correct for r in records]
    for name, values in of_docs.items():
        assert results[f"auroc_{name},says"] == pytest.approx(_auroc(values, correct), abs=1e-12)
        assert f"ece_{name},says" not in results


def _auroc(values: Any, correct: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(correct, values))


def test_an_answer_in_a_form_is_located_in_its_line() -> None:
    reply = "Explanation: 90 of 100\nAnswer: 90\nConfidence: 90%"
    sentence = {
        "name": "says",
        "filter": [{"function": "regex", "regex_pattern": "answer is (.*)[.]"}, *SAYS["filter"][1:]],
    }
    for filters in ([FLEXIBLE], [sentence]):
        lm = Scripted(lambda *_: reply, probability)
        _, _, records = run(lm, make_config(filter_list=filters, **options(verbalized_1s=True)), limit=1)
        start, end = records[0].generation.answer.span
        assert (reply[:start], reply[start:end]) == ("Explanation: 90 of 100\nAnswer: ", "90")
        assert records[0].generation.answer_probability == pytest.approx(probability("9") * probability("0"))


def test_a_backend_of_texts_alone_counts_outcomes() -> None:
    results, *_ = run(TextsOnly(ends_early), make_config(filter_list=[SAYS]))
    assert results["empty,says"] == pytest.approx(1 / 12)
    assert not any("_answer" in key or key.startswith("ece") for key in results)


@pytest.mark.parametrize("value", [3, "("])
def test_a_bad_refusal_is_refused(value: Any) -> None:
    from lm_eval_calibration.tasks import CalibratedTask, TaskError

    with pytest.raises(TaskError, match=r"refusal is .*, not a (text|regular expression)"):
        CalibratedTask(make_config(**options(refusal=value)))
