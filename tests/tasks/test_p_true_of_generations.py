"""P(true) of what a model wrote: the text is generated, then the query about it is scored, in one run."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from generation_tasks import adds, make_config, run
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from scripted import Scripted, TextsOnly
from tiny import run_tasks

from lm_eval_calibration import metrics
from lm_eval_calibration.backends import TokenScores
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR

METRICS = ("brier_top_label", "ece", "ace", "auroc", "skill_score")

ASKED = {"metadata": {"calibration": {"p_true": "kapoor", "reference": ""}}}


class Judge(Scripted):
    """Says of an answer that it is right with a probability that grows with the answer's last digit."""

    tokenizer_name = "x"

    def token_scores_v1(self, requests: Any) -> list[TokenScores]:
        self.queries = [request.args for request in requests]
        return [
            TokenScores((math.log(p if text == " ii" else 1 - p), False))
            for p, text in ((judgement(context), text) for context, text in self.queries)
        ]


def judgement(context: str) -> float:
    digit = context.removesuffix(KAPOOR.question)[-1:]
    return (1 + int(digit)) / 11 if digit.isdigit() else 0.05


def test_p_true_is_that_of_full_logits(gpt2_lm: HFLM) -> None:
    _, samples, records = run(gpt2_lm, make_config(**ASKED), limit=5)
    for line, record in zip(samples, records, strict=True):
        text = line["resps"][0][0]
        tokens = gpt2_lm.tokenizer.encode(f"{line['doc']['question']}{text}{KAPOOR.question} i")
        with torch.no_grad():
            log_probs = gpt2_lm.model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)
        expected = math.exp(log_probs[gpt2_lm.tokenizer.encode("i")[0]])
        assert record.stated["p_true"].confidence == pytest.approx(expected, abs=1e-5)
        assert record.stated["p_true"].query == "kapoor"


def test_texts_and_plain_metrics_are_untouched(gpt2_lm: HFLM) -> None:
    config = make_config(metadata={"calibration": {"reference": ""}})
    plain, plain_samples, plain_records = run(gpt2_lm, config)
    results, samples, records = run(gpt2_lm, make_config(**ASKED))
    stock = run_tasks(gpt2_lm, [ConfigurableTask(config={**make_config(), "task": "sums"})])
    assert [str(line["resps"][0][0]) for line in samples] == [line["resps"][0][0] for line in stock["samples"]["sums"]]
    assert results["acc,none"] == stock["results"]["sums"]["exact_match,none"]
    for name in ("acc", "brier_top_label", "ece", "ace", "exact_match", "brier_top_label_stderr"):
        assert results[f"{name},none"] == plain[f"{name},none"]
    assert [record.generation for record in records] == [record.generation for record in plain_records]
    assert plain_samples[0]["calibration"].keys() == samples[0]["calibration"].keys() - {"p_true"}


def test_metrics_are_those_of_p_true_and_correct() -> None:
    lm = Judge(adds)
    results, _, records = run(lm, make_config(**ASKED))
    answers = [adds(f"{i} + {i % 3}") for i in range(12)]
    confidence = [judgement(answer + KAPOOR.question) for answer in answers]
    assert [record.stated["p_true"].confidence for record in records] == pytest.approx(confidence, abs=1e-12)
    correct = [i % 2 == 0 for i in range(12)]
    for name in METRICS:
        expected = metrics.GENERATION_CATALOG[name].value(confidence, np.array(correct, dtype=int))
        assert results[f"{name}_p_true,none"] == pytest.approx(expected, abs=1e-12)
        assert results[f"{name},none"] != results[f"{name}_p_true,none"]
    assert lm.queries[:2] == [(f"0 + 0{answers[0]}{KAPOOR.question}", text) for text in KAPOOR.continuations]


def test_an_empty_answer_is_asked_about_and_counts_in_no_metric() -> None:
    """A doc without an answer has no confidence, whatever the model says about nothing."""
    results, _, records = run(Judge(lambda prompt, _: "" if prompt.startswith("1") else "7"), make_config(**ASKED))
    empty = [record.confidence is None for record in records]
    assert sum(empty) == 3
    said = [record.stated["p_true"].confidence for record in records]  # after nothing, of the prompt's last digit
    assert [p == pytest.approx(8 / 11) for p in said] == [not e for e in empty]
    answered = [r for r, is_empty in zip(records, empty, strict=True) if not is_empty]
    confidence, correct = [r.stated["p_true"].confidence for r in answered], [r.correct for r in answered]
    assert results["ece_p_true,none"] == pytest.approx(metrics.ece(confidence, correct), abs=1e-12)
    results, *_ = run(Judge(lambda *_: ""), make_config(**ASKED))
    assert math.isnan(results["ece,none"])
    assert math.isnan(results["ece_p_true,none"])


def test_one_doc_and_one_class() -> None:
    results, *_ = run(Judge(adds), make_config(**ASKED), limit=1, bootstrap_iters=10)
    assert results["brier_top_label_p_true,none"] == pytest.approx((1 - 1 / 11) ** 2)
    assert results["ece_p_true_stderr,none"] == "N/A"
    assert math.isnan(results["auroc_p_true,none"])


def test_a_backend_that_gives_log_likelihoods_only_has_p_true() -> None:
    results, _, records = run(TextsOnly(adds), make_config(**ASKED))
    assert {record.stated["p_true"].confidence for record in records} == {0.5}
    assert results["ece_p_true,none"] == pytest.approx(0.0)
    assert "ece,none" not in results


def test_one_that_gives_none_has_all_the_rest(harness_log: pytest.LogCaptureFixture) -> None:
    class Chat(TextsOnly):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise NotImplementedError("no log-likelihoods here")

    results, _, records = run(Chat(adds), make_config(**ASKED))
    assert results["acc,none"] == 0.5
    assert "ece_p_true,none" not in results
    assert not any(record.stated for record in records)
    assert "Chat can't answer follow-up questions: no log-likelihoods here" in harness_log.text


def test_several_samples_are_asked_about_once_each(gpt2_lm: HFLM) -> None:
    chosen = {"metadata": {"calibration": {"p_true": "kapoor", "reference": "", "repeats": 3}}}
    lm = Judge(lambda prompt, asked: adds(prompt) + "x" * (asked == 1))
    results, _, records = run(lm, make_config(**chosen))
    assert len(lm.queries) == 12 * 2 * 2  # two of the three samples are alike
    assert [r.stated["p_true"].confidence for r in records] == pytest.approx(
        [judgement(adds(f"{i} + {i % 3}") + KAPOOR.question) for i in range(12)]
    )
    assert {"ece_p_true,none", "ece_self_consistency,none"} <= results.keys()


def test_an_interrupted_run_resumes_both_stages(gpt2_lm: HFLM, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = run(gpt2_lm, make_config(**ASKED), use_cache=str(tmp_path / "cache"))
    monkeypatch.setattr(gpt2_lm, "_model_call", None)
    monkeypatch.setattr(gpt2_lm, "_model_generate", None)
    again, *_ = run(gpt2_lm, make_config(**ASKED), use_cache=str(tmp_path / "cache"))
    assert again["ece_p_true,none"] == first["ece_p_true,none"]


def test_a_chat_asks_in_the_user_s_next_turn(gpt2_lm: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    monkeypatch.setattr(gpt2_lm.tokenizer, "chat_template", template)
    lm = Judge(adds)
    lm.apply_chat_template, lm.chat_template = gpt2_lm.apply_chat_template, gpt2_lm.chat_template
    _, samples, _ = run(lm, make_config(**ASKED), apply_chat_template=True, limit=2)
    context = samples[0]["arguments"][0][0]
    assert context == "<user>0 + 0</><assistant>"
    prompt = f"{context}0</><user>{KAPOOR.question.strip()}</><assistant>"
    assert lm.queries[:2] == [(prompt, "i"), (prompt, "ii")]


def test_records_keep_it() -> None:
    _, samples, records = run(Judge(adds), make_config(**ASKED), limit=3)
    assert [Record.from_dict(json.loads(json.dumps(record.to_dict()))) for record in records] == records
    assert samples[0]["calibration"]["p_true"] == {"query": "kapoor", "confidence": pytest.approx(1 / 11)}
