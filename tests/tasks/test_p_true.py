"""P(true): what a model says of its own answer, beside the confidence of its choices."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny import make_config, make_gpt2, make_rows, make_tokenizer, run_tasks
from users_tasks import SHAPES, write_task

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.records import ChoicesRecord, Record, StatedConfidence, read_columns, read_records
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager, TaskError, files
from lm_eval_calibration.tasks.aggregation import MetricStatistic
from lm_eval_calibration.tasks.confidences.p_true_query import KADAVATH, KAPOOR
from lm_eval_calibration.tasks.views import rows

NAME = "letters_calibration"
METRICS = ("brier_top_label", "ece", "ace", "auroc")


class ByText(LM):
    """Log-likelihoods that depend on the request's text alone, so that no batch can change them."""

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [
            (-1 - sum(map(ord, context[-99:] + continuation)) % 97 / 16, False)
            for context, continuation in _args(requests)
        ]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    loglikelihood_rolling = generate_until


def _args(requests: Any) -> list[tuple[str, str]]:
    return [request.args for request in requests]


def asked(**chosen: Any) -> dict[str, Any]:
    return {"metadata": {"calibration": {"p_true": "kapoor", **chosen}}}


def run_all(lm: Any, *configs: dict[str, Any], **chosen: Any) -> list[tuple[dict[str, Any], list[Record], list[Any]]]:
    """Each task's row, records and lines in the log, of one run of all."""
    results = run_tasks(lm, [CalibratedTask(config) for config in configs], **chosen)
    found = []
    for name in (config["task"] for config in configs):
        row = {key.removesuffix(",none"): value for key, value in results["results"][name].items()}
        lines = results["samples"][name]
        records = [Record.from_dict(json.loads(json.dumps(line["calibration"]))) for line in lines]
        found.append(({key: value for key, value in row.items() if key not in ("name", "alias")}, records, lines))
    return found


def run(lm: Any, config: dict[str, Any], **chosen: Any) -> tuple[dict[str, Any], list[Record], list[Any]]:
    (found,) = run_all(lm, config, **chosen)
    return found


def without_stock_tasks(monkeypatch: pytest.MonkeyPatch, index: dict[str, Any]) -> None:
    """Let files be written from this index, not from the thousands of tasks of the harness; ours stay."""
    ours = files.read_index(files.task_configs(), include_defaults=False)
    monkeypatch.setattr(files, "read_index", lambda _, include_defaults=True: index if include_defaults else ours)


def next_log_probs(lm: HFLM, tokens: list[int]) -> Any:
    """[vocab_size] of the token after these, from the whole logits of one plain forward."""
    with torch.no_grad():
        return lm.model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)


def naive_log_likelihood(lm: HFLM, prompt: str, continuation: str) -> float:
    before, after = lm.tokenizer.encode(prompt), lm.tokenizer.encode(prompt + continuation)
    assert after[: len(before)] == before
    return sum(float(next_log_probs(lm, after[:i])[after[i]]) for i in range(len(before), len(after)))


# --- the number -------------------------------------------------------------------------------------------------------


def test_variants_of_our_own_groups_are_written_for_the_stock_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_stock_tasks(monkeypatch, {})
    written = {path.stem for path in files.write_files(["medical_p_true"], tmp_path)}
    assert {"medical_p_true_calibration", "medmcqa_p_true_calibration"} <= written
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert manager.match_tasks(["medical_p_true_calibration"]) == ["medical_p_true_calibration"]
    with pytest.raises(TaskError, match="medical_calibration ships with this package"):
        files.write_files(["medical"], tmp_path)


def test_what_is_said_when_asked_has_intervals_and_nulls_of_its_own() -> None:
    row, records, _ = run(ByText(), make_config(make_rows(30), **asked(intervals=True, nulls=True)))
    confidence = np.array([record.stated["p_true"].confidence for record in records if "p_true" in record.stated])
    correct = np.array([record.correct for record in records])
    low, high = metrics.CATALOG["ece"].interval(confidence, correct)
    assert (row["ece_p_true_low"], row["ece_p_true_high"]) == pytest.approx((low, high), abs=1e-12)
    null = metrics.CATALOG["ece"].null
    assert null is not None
    _, mean, _, p_value = null(confidence, correct)
    assert (row["ece_p_true_null"], row["ece_p_true_p"]) == pytest.approx((mean, p_value), abs=1e-12)
    assert low <= row["ece_p_true"] <= high


def test_p_true_is_that_of_full_logits_where_bytes_are_tokens(gpt2_lm: HFLM) -> None:
    """`` ii`` is `` i`` and ``i`` here: after an `` i``, is there another one?"""
    _, records, samples = run(gpt2_lm, make_config(make_rows(6), **asked()))
    for record, line in zip(records, samples, strict=True):
        answer = " " + line["doc"]["choices"][int(np.argmax(record.log_likelihoods))]
        prompt = f"{line['doc']['question']}\nAnswer:{answer}{KAPOOR.question}"
        tokens = gpt2_lm.tokenizer.encode(f"{prompt} i")
        expected = math.exp(next_log_probs(gpt2_lm, tokens)[gpt2_lm.tokenizer.encode("i")[0]])
        assert record.stated["p_true"].confidence == pytest.approx(expected, abs=1e-5)
        assert record.stated["p_true"].query == "kapoor"


@pytest.fixture(scope="module")
def merging_lm() -> HFLM:
    """A tokenizer with a token for `` i`` and one for `` ii``."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = make_tokenizer()
    vocabulary = plain.get_vocab()
    merges = [("Ġ", "i"), ("Ġi", "i")]
    vocabulary |= {a + b: len(vocabulary) + n for n, (a, b) in enumerate(merges)}
    backend = plain.backend_tokenizer
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = backend.pre_tokenizer, backend.decoder
    merging = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    return HFLM(pretrained=make_gpt2(merging), tokenizer=merging, backend="causal", device="cpu", batch_size=3)


def test_with_a_token_for_each_it_is_the_share_of_two_tokens(merging_lm: HFLM) -> None:
    i, ii = (merging_lm.tokenizer.encode(text) for text in KAPOOR.continuations)
    assert len(i) == len(ii) == 1
    _, records, samples = run(merging_lm, make_config(make_rows(6), **asked()))
    for record, line in zip(records, samples, strict=True):
        answer = line["doc"]["choices"][int(np.argmax(record.log_likelihoods))]
        prompt = f"{line['doc']['question']}\nAnswer: {answer}{KAPOOR.question}"
        log_probs = next_log_probs(merging_lm, merging_lm.tokenizer.encode(prompt))
        expected = float(torch.stack([log_probs[i[0]], log_probs[ii[0]]]).softmax(0)[1])
        assert record.stated["p_true"].confidence == pytest.approx(expected, abs=1e-5)


def test_the_other_wording(gpt2_lm: HFLM) -> None:
    _, records, samples = run(gpt2_lm, make_config(make_rows(4), **asked(p_true="kadavath")))
    for record, line in zip(records, samples, strict=True):
        answer = line["doc"]["choices"][int(np.argmax(record.log_likelihoods))]
        prompt = f"{line['doc']['question']}\nAnswer: {answer}{KADAVATH.question}"
        true, false = (naive_log_likelihood(gpt2_lm, prompt, text) for text in KADAVATH.continuations)
        assert record.stated["p_true"].confidence == pytest.approx(1 / (1 + math.exp(false - true)), abs=1e-5)
        assert record.stated["p_true"].query == "kadavath"


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [True, False])
def test_metrics_are_those_of_p_true_and_correct(gpt2_lm: HFLM, ragged: bool) -> None:
    results, records, _ = run(
        gpt2_lm, make_config(make_rows(20, ragged=ragged), **asked(n_bins=7, metrics=["aurc"])), bootstrap_iters=10
    )
    confidence, correct = [r.stated["p_true"].confidence for r in records], [r.correct for r in records]
    for name in (*METRICS, "aurc"):
        metric = metrics.GENERATION_CATALOG[name]
        bins = {"n_bins": 7} if metric.takes_n_bins else {}
        assert results[f"{name}_p_true"] == pytest.approx(metric.value(confidence, correct, **bins), abs=1e-12)
        assert results[f"{name}_p_true_stderr"] == pytest.approx(metric.stderr(confidence, correct, **bins), abs=1e-12)
    assert "brier_score_p_true" not in results
    assert "full_ece_p_true" not in results


def test_the_plain_columns_are_untouched() -> None:
    configs = make_config(make_rows(20), "plain_calibration"), make_config(make_rows(20), **asked())
    (plain, plain_records, _), (results, records, _) = run_all(ByText(), *configs)
    assert {name: results[name] for name in plain} == plain
    for mine, theirs in zip(records, plain_records, strict=True):
        assert (mine.log_likelihoods, mine.correct, mine.log_probs) == (theirs.log_likelihoods, theirs.correct, None)
        assert "p_true" not in theirs.stated


def test_the_plain_columns_of_a_model_differ_by_the_rounding_of_its_batches_at_most(gpt2_lm: HFLM) -> None:
    plain, _, _ = run(gpt2_lm, make_config(make_rows(20)))
    results, _, _ = run(gpt2_lm, make_config(make_rows(20), **asked()))
    assert results["acc"] == plain["acc"]
    for name in ("brier_score", "ece", "ace", "full_ece", "auroc"):
        assert results[name] == pytest.approx(plain[name], abs=1e-5)


@pytest.mark.parametrize("shape", ["letters", "ragged", "multiple_inputs", "described", "functions"])
def test_the_answer_in_the_query_is_the_one_that_is_judged(shape: str, gpt2_lm: HFLM, tmp_path: Path) -> None:
    path = write_task(tmp_path, shape, **SHAPES[shape])
    stock, task = ConfigurableTask(config=stock_of(path)), calibrated(path, p_true="kapoor")
    results = run_tasks(gpt2_lm, [stock, task], limit=6)["samples"]
    for line, plain in zip(results[task.task_name], results[shape], strict=True):
        assert line["acc"] == plain["acc"]
        choices, queries = line["arguments"][: len(plain["arguments"])], line["arguments"][len(plain["arguments"]) :]
        assert choices == plain["arguments"]
        context, answer = choices[int(np.argmax(line["calibration"]["log_likelihoods"]))]
        assert queries == [(f"{context}{answer}{KAPOOR.question}", text) for text in (" i", " ii")]
        no, yes = (resp[0][0] for resp in line["resps"][len(choices) :])
        assert line["calibration"]["p_true"]["confidence"] == pytest.approx(math.exp(min(yes - no, 0)), abs=1e-12)


def stock_of(path: Path) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(path, resolve_func=True)


def test_a_chat_asks_in_the_user_s_next_turn(gpt2_lm: HFLM) -> None:
    gpt2_lm.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        _, records, samples = run(gpt2_lm, make_config(make_rows(4), **asked()), apply_chat_template=True)
    finally:
        gpt2_lm.tokenizer.chat_template = None
    line = samples[0]
    n_choices = len(line["doc"]["choices"])
    context, choice = line["arguments"][0]
    assert context == f"<user>{line['doc']['question']}\nAnswer:</><assistant>"
    prompt, no = line["arguments"][n_choices]
    assert prompt == f"{context}{choice}</><user>{KAPOOR.question.strip()}</><assistant>"
    assert (no, line["arguments"][n_choices + 1]) == ("i", (prompt, "ii"))
    assert all(0 <= record.stated["p_true"].confidence <= 1 for record in records)


def test_a_template_that_shows_no_answer_is_refused() -> None:
    task = CalibratedTask(make_config(make_rows(4), **asked()))
    with pytest.raises(TaskError, match="letters_calibration: the chat template leaves out the answer"):
        task.build_all_requests(apply_chat_template=True, chat_template=lambda messages, **_: messages[-1]["content"])


# --- edges ------------------------------------------------------------------------------------------------------------


def test_one_class_has_no_auroc(harness_log: pytest.LogCaptureFixture) -> None:
    rows = make_rows(8, ragged=False)
    _, records, _ = run(ByText(), make_config(rows))
    right = [{**row, "answer": int(np.argmax(r.log_likelihoods))} for row, r in zip(rows, records, strict=True)]
    results, _, _ = run(ByText(), make_config(right, **asked()))
    assert results["acc"] == 1
    assert math.isnan(results["auroc_p_true"])
    assert results["ece_p_true"] > 0
    assert "auroc is undefined" in harness_log.text


def test_one_doc_has_values_and_no_errors() -> None:
    results, (record,), _ = run(ByText(), make_config(make_rows(4), **asked()), limit=1, bootstrap_iters=10)
    assert results["brier_top_label_p_true"] == pytest.approx(
        (record.stated["p_true"].confidence - record.correct) ** 2
    )
    assert results["ece_p_true_stderr"] == "N/A"


def test_a_broken_label_counts_in_no_metric_of_p_true() -> None:
    rows = [{**row, "answer": -100 if i == 2 else row["answer"]} for i, row in enumerate(make_rows(8))]
    results, records, _ = run(ByText(), make_config(rows, **asked()))
    assert "p_true" in records[2].stated
    sound = [r for r in records if r.correct is not None]
    assert len(sound) == 7
    expected = metrics.ece([r.stated["p_true"].confidence for r in sound], [r.correct for r in sound])
    assert results["ece_p_true"] == pytest.approx(expected, abs=1e-12)


def test_a_model_that_can_say_neither_has_no_p_true() -> None:
    class Mute(ByText):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            pairs = super().loglikelihood(requests)
            is_query = [context.endswith("Answer:") and "proposed" in context for context, _ in _args(requests)]
            return [(-math.inf, False) if query else pair for query, pair in zip(is_query, pairs, strict=True)]

    results, records, _ = run(Mute(), make_config(make_rows(8), **asked()))
    assert {record.stated["p_true"].confidence for record in records} == {None}
    assert math.isnan(results["ece_p_true"])
    assert results["ece"] > 0


def test_a_group_pools_it(tmp_path: Path) -> None:
    import yaml

    for name in ("letters", "ragged"):
        write_task(tmp_path, name, **SHAPES[name])
    group = {"group": "trees", "task": ["letters", {"task": "ragged", "num_fewshot": 1}]}
    group["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": True}]
    (tmp_path / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False)
    from lm_eval import simple_evaluate

    results = simple_evaluate(model=ByText(), tasks=["trees_p_true_calibration"], task_manager=manager)
    tasks = ("letters_p_true_calibration", "ragged_p_true_calibration")
    lines = [line["calibration"] for task in tasks for line in results["samples"][task]]
    records = [Record.from_dict(line) for line in lines]
    confidence, correct = [r.stated["p_true"].confidence for r in records], [r.correct for r in records]
    row = results["groups"]["trees_p_true_calibration"]
    assert row["ece_p_true,none"] == pytest.approx(metrics.ece(confidence, correct), abs=1e-12)
    assert row["auroc_p_true_stderr,none"] == pytest.approx(metrics.auroc_stderr(confidence, correct), abs=1e-12)
    assert row["ece,none"] != row["ece_p_true,none"]


def test_it_stands_beside_other_orders_of_the_choices(tmp_path: Path) -> None:
    path = write_task(tmp_path, "letters", **SHAPES["letters"])
    options = {"both": {"permute": 3, "p_true": "kapoor"}, "one": {"p_true": "kapoor"}, "other": {"permute": 3}}
    configs = [
        {"task": name, "stock_task": str(path), "metadata": {"calibration": chosen}} for name, chosen in options.items()
    ]
    (both, *_), (one, *_), (other, *_) = run_all(ByText(), *configs)
    assert {**other, **one} == both


# --- names, options, records ------------------------------------------------------------------------------------------


def test_the_name_stands_for_the_option_and_metadata_for_the_wording(tmp_path: Path) -> None:
    write_task(tmp_path, "letters", **SHAPES["letters"], metadata={"calibration": {"metrics": ["mce"]}})
    metadata = {"calibration": {"n_bins": 5, "p_true": "kadavath"}}
    for given, wording, n_bins in (
        (None, "kapoor", 10),
        (metadata, "kadavath", 5),
        ({"calibration": {"n_bins": 5}}, "kapoor", 5),
    ):
        manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False, metadata=given)
        task = manager.load(["letters_p_true_calibration"])["tasks"]["letters_p_true_calibration"]
        assert (task.options["p_true"], task.options.n_bins, task.options.metrics) == (wording, n_bins, ("mce",))
    assert calibrated("letters_p_true", include_path=tmp_path).options["p_true"] == "kapoor"
    with pytest.raises(
        TaskError, match=r"p_true is 'kapor' \(did you mean kapoor\?\); the wordings are kapoor, kadavath"
    ):
        calibrated(tmp_path / "letters.yaml", p_true="kapor")


def test_patterns_and_files_for_the_stock_command_know_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tree_letters", "tree_ragged"):
        write_task(tmp_path, name, **SHAPES[name.removeprefix("tree_")], tag="trees")
    manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False)
    names = ["tree_letters_p_true_calibration", "tree_ragged_p_true_calibration"]
    assert manager.match_tasks(["tree_*_p_true_calibration"]) == names
    with pytest.raises(TaskError, match="no task 'tree_leters_"):
        manager.match_tasks(["tree_leters_p_true_calibration"])
    users_own = TaskManager(include_path=str(tmp_path), include_defaults=False).task_index
    without_stock_tasks(monkeypatch, users_own)
    written = files.write_files(["trees_p_true"], tmp_path / "out")
    assert [path.stem for path in written] == [*names, "trees_p_true_calibration"]
    metadata = {"calibration": {"n_bins": 5}}
    manager = CalibrationTaskManager(include_path=str(tmp_path / "out"), include_defaults=False, metadata=metadata)
    task = manager.load(names[:1])["tasks"][names[0]]
    assert (task.options["p_true"], task.options.n_bins) == ("kapoor", 5)


def test_a_corpus_has_no_answers_to_ask_about(tmp_path: Path, harness_log: pytest.LogCaptureFixture) -> None:
    keys = {"doc_to_text": "", "doc_to_target": "question", "output_type": "loglikelihood_rolling", "metric_list": None}
    path = write_task(tmp_path, "texts", **keys)
    manager = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False)
    with pytest.raises(TaskError, match="texts_p_true_calibration: a corpus holds no answers"):
        manager.load(["texts_p_true_calibration"])
    task = calibrated(path, p_true="kapoor")  # as --metadata asks all tasks of a run
    task.build_all_requests(limit=2)
    assert len(task.instances) == 2
    assert "texts_calibration: calibration option p_true has no effect on a corpus" in harness_log.text


def test_records_keep_it(tmp_path: Path) -> None:
    _, records, samples = run(ByText(), make_config(make_rows(8), **asked()))
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(line, default=str) + "\n" for line in samples), encoding="utf-8")
    assert list(read_records(path)) == records
    assert samples[0]["calibration"]["p_true"] == {
        "query": "kapoor",
        "confidence": records[0].stated["p_true"].confidence,
    }
    assert len(read_columns(path)) == 8
    with pytest.raises(ValueError, match=r"confidence stated in reply to the query kapoor is 1\.5"):
        Record.from_dict({**samples[0]["calibration"], "p_true": {"query": "kapoor", "confidence": 1.5}})


def test_cached_requests_of_another_query_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    config = make_config(make_rows(4))
    first = run_tasks(ByText(), [CalibratedTask({**config, **asked()})], cache_requests=True)
    again = run_tasks(ByText(), [CalibratedTask({**config, **asked()})], cache_requests=True)
    assert first["results"][NAME]["ece_p_true,none"] == again["results"][NAME]["ece_p_true,none"]
    for other in ({}, asked(p_true="kadavath")):
        with pytest.raises(TaskError, match="run with --cache_requests refresh"):
            run_tasks(ByText(), [CalibratedTask({**config, **other})], cache_requests=True)


def test_answers_that_the_model_says_nothing_of_are_counted(harness_log: pytest.LogCaptureFixture) -> None:
    said = [StatedConfidence("kapoor", p) for p in (0.8, None, 0.3)]
    records = [
        ChoicesRecord(
            task="t",
            doc_id=i,
            doc_hash=f"d{i}",
            prompt_hash="p",
            log_likelihoods=(0.0, -1.0),
            gold=i % 2,
            stated={"p_true": asked},
        )
        for i, asked in enumerate(said)
    ]
    value = MetricStatistic.of(rows("choices")["ece_p_true"], 10)(records)
    assert value == pytest.approx(metrics.ece([0.8, 0.3], [1, 1]), abs=1e-12)
    assert "t: of 1 of 3 answers the model says neither that they are right nor" in harness_log.text
