from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from completions_server import Behaviour, chat_url, completions_server

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI


def run(lm: Any, n_bins: int = 10) -> dict[str, Any]:
    config = tiny.make_config(tiny.make_rows(20), metadata={"calibration": {"n_bins": n_bins}})
    results = tiny.run_tasks(lm, [CalibratedTask(config)])
    return results["results"]["letters_calibration"]


def run_server(gpt2_lm: Any, tmp_path: Path, behaviour: Behaviour, n_bins: int = 10) -> dict[str, Any]:
    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        return run(lm, n_bins)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def test_a_server_with_twenty_entries_gives_every_metric(gpt2_lm: Any, tmp_path: Path) -> None:
    expected = numbers(run(gpt2_lm))
    assert numbers(run_server(gpt2_lm, tmp_path, Behaviour())) == pytest.approx(expected, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("n_bins", [10, 20])
def test_a_server_with_one_entry_gives_bounds_and_no_point(
    gpt2_lm: Any, tmp_path: Path, n_bins: int, harness_log: pytest.LogCaptureFixture
) -> None:
    expected = run(gpt2_lm, n_bins)
    found = run_server(gpt2_lm, tmp_path, Behaviour(most=1), n_bins)
    assert "full_ece,none" not in found
    assert found["full_ece_at_least,none"] - 1e-6 <= expected["full_ece,none"] <= found["full_ece_at_most,none"] + 1e-6
    assert found["full_ece_at_least,none"] < found["full_ece_at_most,none"]
    assert "full_ece_at_least and full_ece_at_most are what it can be" in harness_log.text
    for name in ("acc", "ece", "ace", "brier_score", "auroc"):
        assert found[f"{name},none"] == pytest.approx(expected[f"{name},none"], abs=1e-4)


@pytest.mark.slow
def test_a_group_pools_the_bounds(gpt2_lm: Any, tmp_path: Path) -> None:
    from lm_eval.api.group import Group

    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    rows = tiny.make_rows(20)
    group = Group.from_config({"group": "both_calibration", "aggregate_metric_list": [{"metric": "acc"}]})
    whole = CalibratedTask(tiny.make_config(rows, task="whole_calibration"))
    group.add(CalibratedTask(tiny.make_config(rows[:8])))
    group.add(CalibratedTask(tiny.make_config(rows[8:], task="digits_calibration")))
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(most=1)) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        results = tiny.run_tasks(lm, [group, whole])["results"]
    for name in ("full_ece_at_least,none", "full_ece_at_most,none"):
        assert results["both_calibration"][name] == pytest.approx(results["whole_calibration"][name], abs=1e-6)


def words_config() -> dict[str, Any]:
    config = tiny.make_config(tiny.make_rows(6), task="words_calibration")
    config |= {"output_type": "generate_until", "generation_kwargs": {"until": ["."], "max_gen_toks": 8}}
    config |= {"doc_to_target": "{{choices[0]}}", "metric_list": [{"metric": "exact_match"}]}
    del config["doc_to_choice"]
    return config


def test_reference_tokens_of_a_generation_task_have_bounds_too(gpt2_lm: Any, tmp_path: Path) -> None:
    config = words_config()
    expected = tiny.run_tasks(gpt2_lm, [CalibratedTask(config)])["results"]["words_calibration"]
    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(most=1)) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        found = tiny.run_tasks(lm, [CalibratedTask(config)])["results"]["words_calibration"]
    assert "full_ece,none" not in found
    assert found["full_ece_at_least,none"] - 1e-6 <= expected["full_ece,none"] <= found["full_ece_at_most,none"] + 1e-6
    assert found["token_accuracy,none"] == pytest.approx(expected["token_accuracy,none"])


def letters_config(task: str = "letters_calibration") -> dict[str, Any]:
    rows = [{"question": row["question"], "answer": i % 4} for i, row in enumerate(tiny.make_rows(20))]
    return tiny.make_config(rows, task=task, doc_to_choice=["A", "B", "C", "D"])


def run_chat(gpt2_lm: Any, tasks: list[Any], behaviour: Behaviour | None = None) -> dict[str, Any]:
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, behaviour or Behaviour()) as url:
        lm = LocalChatCompletion(base_url=chat_url(url), model="tiny")
        return tiny.run_tasks(lm, tasks, apply_chat_template=True, bootstrap_iters=10)


def test_a_chat_server_answers_multiple_choice(gpt2_lm: Any, harness_log: pytest.LogCaptureFixture) -> None:
    results = run_chat(gpt2_lm, [CalibratedTask(letters_config())])
    row = results["results"]["letters_calibration"]
    records = [Record.from_dict(sample["calibration"]) for sample in results["samples"]["letters_calibration"]]
    assert "full_ece,none" not in row
    assert row["acc,none"] == np.mean([record.correct for record in records])
    assert row["ece,none"] == metrics.ece([r.confidence for r in records], [r.correct for r in records])
    for record in records:
        bounded = record.extra["bounded_choices"]
        read = np.exp(np.delete(record.log_likelihoods, bounded)).sum()
        assert record.extra["unassigned_mass"] == pytest.approx(1 - read)
        assert record.certificate["choices"] == ("bounded" if bounded else "exact")
        assert record.certificate["distributions"] == "first_token"
    assert row["unassigned_mass,none"] == pytest.approx(np.mean([r.extra["unassigned_mass"] for r in records]))
    assert row["unassigned_mass_stderr,none"] > 0
    n_bounded = sum(bool(record.extra["bounded_choices"]) for record in records)
    assert n_bounded > 0
    assert f"letters_calibration: of 20 docs {n_bounded} have a choice that is none" in harness_log.text
    assert "full_ece is left out" in harness_log.text


def test_a_group_has_the_unassigned_mass(gpt2_lm: Any) -> None:
    from lm_eval.api.group import Group

    group = Group.from_config({"group": "both_calibration", "aggregate_metric_list": [{"metric": "acc"}]})
    for task in ("letters_calibration", "digits_calibration"):
        group.add(CalibratedTask(letters_config(task)))
    results = run_chat(gpt2_lm, [group])["results"]
    expected = results["letters_calibration"]["unassigned_mass,none"]
    assert results["both_calibration"]["unassigned_mass,none"] == pytest.approx(expected)


def test_a_chat_server_refuses_choices_that_no_token_reads_as(gpt2_lm: Any) -> None:
    rows = [{"question": "Which?", "options": ["one", "one and two"], "answer": 0}] * 3
    config = tiny.make_config(rows, doc_to_choice="options")
    with pytest.raises(UserError, match=r"letters_calibration doc 0: choice 'one and two' is no single letter"):
        run_chat(gpt2_lm, [CalibratedTask(config)])


@pytest.mark.parametrize("is_chat", [False, True])
def test_what_a_server_writes_has_confidence(
    gpt2_lm: Any, tmp_path: Path, is_chat: bool, harness_log: pytest.LogCaptureFixture
) -> None:
    task = CalibratedTask(words_config())
    if is_chat:
        results = run_chat(gpt2_lm, [task])
    else:
        gpt2_lm.tokenizer.save_pretrained(tmp_path)
        with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour()) as url:
            lm = LocalCompletionsAPI(
                base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
            )
            results = tiny.run_tasks(lm, [task])
    row = results["results"]["words_calibration"]
    assert row["ece,none"] >= 0
    assert ("full_ece,none" in row) == ("token_accuracy,none" in row) == (not is_chat)
    assert ("can't score given texts" in harness_log.text) == is_chat
    samples = [sample["calibration"] for sample in results["samples"]["words_calibration"]]
    assert all(sample["certificate"]["token_probabilities"].startswith("as the server") for sample in samples)
    assert any(sample["confidence"] is not None for sample in samples)
