from pathlib import Path
from typing import Any

import pytest
import tiny
from completions_server import Manners, completions_server

from lm_eval_calibration.tasks import CalibratedTask

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalCompletionsAPI


def run(lm: Any, n_bins: int = 10) -> dict[str, Any]:
    config = tiny.make_config(tiny.make_rows(20), metadata={"calibration": {"n_bins": n_bins}})
    results = tiny.run_tasks(lm, [CalibratedTask(config)])
    return results["results"]["letters_calibration"]


def run_server(gpt2_lm: Any, tmp_path: Path, manners: Manners, n_bins: int = 10) -> dict[str, Any]:
    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, manners) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        return run(lm, n_bins)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float)}


def test_a_server_with_twenty_entries_gives_every_metric(gpt2_lm: Any, tmp_path: Path) -> None:
    expected = numbers(run(gpt2_lm))
    assert numbers(run_server(gpt2_lm, tmp_path, Manners())) == pytest.approx(expected, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("n_bins", [10, 20])
def test_a_server_with_one_entry_gives_bounds_and_no_point(
    gpt2_lm: Any, tmp_path: Path, n_bins: int, harness_log: pytest.LogCaptureFixture
) -> None:
    expected = run(gpt2_lm, n_bins)
    found = run_server(gpt2_lm, tmp_path, Manners(most=1), n_bins)
    assert "full_ece,none" not in found
    assert found["full_ece_at_least,none"] - 1e-6 <= expected["full_ece,none"] <= found["full_ece_at_most,none"] + 1e-6
    assert found["full_ece_at_least,none"] < found["full_ece_at_most,none"]
    assert "full_ece_at_least and full_ece_at_most are what it can be" in harness_log.text
    for name in ("acc", "ece", "ace", "brier_score", "auroc"):
        assert found[f"{name},none"] == pytest.approx(expected[f"{name},none"], abs=1e-4)


def test_a_group_pools_the_bounds(gpt2_lm: Any, tmp_path: Path) -> None:
    from lm_eval.api.group import Group

    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    rows = tiny.make_rows(20)
    group = Group.from_config({"group": "both_calibration", "aggregate_metric_list": [{"metric": "acc"}]})
    whole = CalibratedTask(tiny.make_config(rows, task="whole_calibration"))
    group.add(CalibratedTask(tiny.make_config(rows[:8])))
    group.add(CalibratedTask(tiny.make_config(rows[8:], task="digits_calibration")))
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Manners(most=1)) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        results = tiny.run_tasks(lm, [group, whole])["results"]
    for name in ("full_ece_at_least,none", "full_ece_at_most,none"):
        assert results["both_calibration"][name] == pytest.approx(results["whole_calibration"][name], abs=1e-6)


def test_reference_tokens_of_a_generation_task_have_bounds_too(gpt2_lm: Any, tmp_path: Path) -> None:
    """The server writes nothing here, so only the reference's tokens are looked at."""
    from lm_eval_calibration.tasks.generation_task import GenerationTask

    config = tiny.make_config(tiny.make_rows(6), task="words_calibration")
    config |= {"output_type": "generate_until", "generation_kwargs": {"until": ["."], "max_gen_toks": 8}}
    config |= {"doc_to_target": "{{choices[0]}}", "metric_list": [{"metric": "exact_match"}]}
    del config["doc_to_choice"]
    expected = tiny.run_tasks(gpt2_lm, [GenerationTask(config)])["results"]["words_calibration"]
    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Manners(most=1)) as url:
        lm = LocalCompletionsAPI(
            base_url=url, model="tiny", tokenizer=str(tmp_path), tokenizer_backend="huggingface", max_length=257
        )
        found = tiny.run_tasks(lm, [GenerationTask(config)])["results"]["words_calibration"]
    assert "full_ece,none" not in found
    assert found["full_ece_at_least,none"] - 1e-6 <= expected["full_ece,none"] <= found["full_ece_at_most,none"] + 1e-6
    assert found["token_accuracy,none"] == pytest.approx(expected["token_accuracy,none"])
