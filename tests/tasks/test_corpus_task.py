"""A corpus through the harness: stock perplexities, token metrics, records, groups."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask
from tiny import run_tasks

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.harness.stock import stock_config
from lm_eval_calibration.records import RECORD_KEY, Record, metric_arrays, read_columns
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager, TaskError
from lm_eval_calibration.tasks.corpus import CorpusTask

WORDS = [
    "a",
    "river",
    "= =",
    "town was",
    "built in",
    "1901 ,",
    "and its",
    "bridge fell .",
    '" no "',
    "( twice )",
    "@-@",
]
OURS = ("full_ece", "ece", "token_accuracy")
STOCK = ("word_perplexity", "byte_perplexity", "bits_per_byte")
NAME = "pages_calibration"


def pages(n: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"page": " ".join(rng.choice(WORDS, size))} for size in rng.integers(1, 150, n)]


def config(rows: list[dict[str, Any]], task: str = NAME, **overrides: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {
        "task": task,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        **overrides,
    }


def values(results: dict[str, Any], task: str = NAME) -> dict[str, Any]:
    return {key.removesuffix(",none"): value for key, value in results["results"][task].items() if "," in key}


def records(results: dict[str, Any], task: str = NAME) -> list[Record]:
    return [Record.from_dict(sample[RECORD_KEY]) for sample in results["samples"][task]]


@pytest.fixture
def wikitext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the data set's name with a corpus of ours, as the current directory."""
    from datasets import Dataset

    folder = tmp_path / "EleutherAI" / "wikitext_document_level"
    splits = {"train": 1, "validation": 1, "test": 6}
    for seed, (split, n) in enumerate(splits.items()):
        path = folder / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(pages(n, seed)).to_json(path)
    files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in splits)
    text = f"---\nconfigs:\n- config_name: wikitext-2-raw-v1\n  data_files:\n{files}---\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_wikitext_beside_the_stock_task(wikitext: Path, gpt2_lm: Any) -> None:
    stock_task = ConfigurableTask(config=stock_config("wikitext"))  # by its name the whole stock index would be read
    results = run_tasks(gpt2_lm, ["wikitext_calibration", stock_task])
    ours, stock = values(results, "wikitext_calibration"), values(results, "wikitext")
    assert [name for name in ours if not name.endswith("_stderr")] == [*STOCK, *OURS]
    for name in STOCK:
        assert ours[name] == pytest.approx(stock[name], rel=1e-6)
    assert results["versions"]["wikitext_calibration"] == results["versions"]["wikitext"]
    assert results["higher_is_better"]["wikitext_calibration"]["token_accuracy"] is True


def test_values_are_those_of_the_records_sums(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [CalibratedTask(config(pages()))], bootstrap_iters=10)
    found, texts = values(results), [record.corpus for record in records(results)]
    n = [text.n_tokens for text in texts]
    assert sum(n) == sum(len(row["page"].encode()) for row in pages())  # tokens are bytes here
    gaps = np.array([text.gap_sums for text in texts])
    top = np.array([text.top_correct for text in texts]) - np.array([text.top_confidence for text in texts])
    assert found["full_ece"] == pytest.approx(np.abs(gaps.sum(0)).sum() / sum(n), abs=1e-12)
    assert found["ece"] == pytest.approx(np.abs(top.sum(0)).sum() / sum(n), abs=1e-12)
    assert found["token_accuracy"] == sum(sum(text.top_correct) for text in texts) / sum(n)
    assert found["full_ece_stderr"] == metrics.full_ece_from_gap_sums_stderr(gaps, n)
    assert found["ece_stderr"] == metrics.token_ece_stderr(top, n)
    assert 0 < found["token_accuracy_stderr"] < 0.1
    log_likelihood, n_bytes = (sum(getattr(t, name) for t in texts) for name in ("log_likelihood", "n_bytes"))
    assert found["byte_perplexity"] == pytest.approx(np.exp(-log_likelihood / n_bytes), rel=1e-12)


def test_records_of_a_file_give_the_run_s_full_ece_for_its_bins_only(tmp_path: Path, gpt2_lm: Any) -> None:
    task = CalibratedTask(config(pages(), metadata={"calibration": {"n_bins": 15}}))
    results = run_tasks(gpt2_lm, [task])
    path = tmp_path / "samples.jsonl"
    lines = [json.dumps({RECORD_KEY: sample[RECORD_KEY]}) for sample in results["samples"][NAME]]
    path.write_text("\n".join(lines), encoding="utf-8")
    gaps, n = read_columns(path, n_bins=15).arrays("full_vocabulary")
    assert metrics.full_ece_from_gap_sums(gaps, n) == pytest.approx(values(results)["full_ece"], abs=1e-12)
    with pytest.raises(ValueError, match=r"doc 0: the sums of a corpus are those of the 15 bins of its run, not of 10"):
        metric_arrays(records(results), "full_vocabulary", 10)
    confidence, correct = metric_arrays(records(results), "top_label", 15)
    assert len(confidence) == len(correct) == 0  # a text is no answer


def test_a_record_is_read_as_it_was_written(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [CalibratedTask(config(pages(2)))])
    for sample in results["samples"][NAME]:
        record = Record.from_dict(sample[RECORD_KEY])
        assert (record.kind, record.confidence, record.correct) == ("corpus", None, None)
        assert record.to_dict() == sample[RECORD_KEY]
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record
        assert record.certificate["max_length"] == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_likelihood": float("nan")}, "log_likelihood is nan"),
        ({"top_count": [1, 2]}, "differ in their numbers of bins"),
        ({"n_tokens": None}, "differ in their numbers of bins"),
        ({"n_tokens": 5}, "top_count adds up to 3, but there are 5 tokens"),
        ({"top_correct": [4, 0, 0]}, "a bin of 3 tokens has confidence 1.5 and 4 correct"),
        ({"top_confidence": [3.5, 0, 0]}, "a bin of 3 tokens has confidence 3.5 and 1 correct"),
    ],
)
def test_sums_that_no_text_has_are_refused(change: dict[str, Any], message: str) -> None:
    corpus = {
        "log_likelihood": -2.0,
        "n_tokens": 3,
        "gap_sums": [0.5, -0.5, 0],
        "top_count": [3, 0, 0],
        "top_confidence": [1.5, 0, 0],
        "top_correct": [1, 0, 0],
    }
    fields = {"version": 1, "definitions": 1, "task": "t", "doc_hash": "d", "prompt_hash": "p", "kind": "corpus"}
    assert Record.from_dict({**fields, "corpus": corpus}).corpus.n_bins == 3
    with pytest.raises(ValueError, match=message):
        Record.from_dict({**fields, "corpus": {**corpus, **change}})
    with pytest.raises(ValueError, match="record of t doc None: no corpus"):
        Record.from_dict(fields)


def test_empty_texts_and_one_text_are_defined_or_named(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    results = run_tasks(gpt2_lm, [CalibratedTask(config([{"page": "words " * 40}, {"page": ""}]))])
    assert 0 < values(results)["full_ece"] < 2
    results = run_tasks(gpt2_lm, [CalibratedTask(config([{"page": "only one"}]))], bootstrap_iters=10)
    assert values(results)["full_ece_stderr"] == "N/A"
    # (of nothing at all the stock byte_perplexity is a division by 0)
    chosen = [{"metric": "word_perplexity"}, {"metric": "full_ece"}]
    results = run_tasks(gpt2_lm, [CalibratedTask(config([{"page": ""}, {"page": ""}], metric_list=chosen))])
    assert np.isnan(values(results)["full_ece"])
    assert "full_ece is undefined: no text has a token" in harness_log.text


def test_other_backends_give_perplexities(harness_log: pytest.LogCaptureFixture) -> None:
    from backends.test_corpus_scores import RollingLM

    results = run_tasks(RollingLM(), [CalibratedTask(config(pages()))])
    assert set(values(results)) == {*STOCK, *(f"{name}_stderr" for name in STOCK)}
    assert values(results)["byte_perplexity"] == pytest.approx(np.e)  # one nat a character
    assert all(record.corpus.gap_sums is None for record in records(results))
    assert "full_ece, ece and token_accuracy are left out" in harness_log.text


def test_predict_only_keeps_the_record(gpt2_lm: Any) -> None:
    results = run_tasks(gpt2_lm, [CalibratedTask(config(pages(3)))], predict_only=True)
    assert [record.corpus.n_words for record in records(results)] == [None] * 3
    assert all(record.corpus.n_tokens for record in records(results))


def test_several_corpora_are_pooled(gpt2_lm: Any) -> None:
    names = ["one_calibration", "two_calibration"]
    tasks = [CalibratedTask(config(pages(5, seed), name)) for seed, name in enumerate(names)]
    group = Group.from_config(
        {
            "group": "both",
            "task": names,
            "aggregate_metric_list": [{"metric": name, "weight_by_size": True} for name in OURS],
        }
    )
    group._children = dict(zip(names, tasks, strict=True))
    results = run_tasks(gpt2_lm, [group])
    texts = [record.corpus for name in names for record in records(results, name)]
    n = [text.n_tokens for text in texts]
    pooled = metrics.full_ece_from_gap_sums([text.gap_sums for text in texts], n)
    assert values(results, "both")["full_ece"] == pytest.approx(pooled, abs=1e-12)
    accuracy = sum(sum(text.top_correct) for text in texts) / sum(n)
    assert values(results, "both")["token_accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_any_rolling_task_of_a_user_is_calibrated(tmp_path: Path, gpt2_lm: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.jsonl").write_text('{"text": "One note."}\n{"text": "Another."}\n', encoding="utf-8")
    (tmp_path / "notes.yaml").write_text(
        "task: notes\ntag: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: notes.jsonl}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n",
        encoding="utf-8",
    )
    task = calibrated(tmp_path / "notes.yaml", n_bins=15)
    assert isinstance(task, CorpusTask)
    results = run_tasks(gpt2_lm, [task])
    assert records(results, "notes_calibration")[0].corpus.n_bins == 15
    group = CalibrationTaskManager(include_path=str(tmp_path), include_defaults=False).load(["mine_calibration"])
    listed = group["groups"]["mine_calibration"].aggregate_metric_list
    assert [entry.metric for entry in listed] == list(OURS)


def test_a_misspelt_column_or_metric_is_named() -> None:
    with pytest.raises(TaskError, match=r"doc_to_target is 'pag' \(did you mean page\?\)"):
        CalibratedTask(config(pages(2), doc_to_target="pag"))
    with pytest.raises(TaskError, match="metric_list has 'auroc'; a corpus has full_ece, ece, token_accuracy"):
        CalibratedTask(config(pages(2), metric_list=[{"metric": "auroc"}]))
    with pytest.raises(TaskError, match=r"metric_list has 'token_acuracy' \(did you mean token_accuracy\?\)"):
        CalibratedTask(config(pages(2), metric_list=[{"metric": "token_acuracy"}]))


def test_chosen_metrics_only(gpt2_lm: Any) -> None:
    chosen = [{"metric": "bits_per_byte"}, {"metric": "ece"}]
    results = run_tasks(gpt2_lm, [CalibratedTask(config(pages(3), metric_list=chosen))])
    assert [name for name in values(results) if not name.endswith("_stderr")] == ["bits_per_byte", "ece"]


def test_the_text_is_the_stock_task_s() -> None:
    task = CalibratedTask(config(pages(2)))
    stock = ConfigurableTask(config={**config(pages(2)), "task": "pages"})
    doc = task.eval_docs[1]
    assert task.construct_requests(doc, "").args == stock.construct_requests(doc, "").args
