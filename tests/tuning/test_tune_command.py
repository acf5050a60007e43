"""The command, on a tiny model: what it leaves behind, how it is resumed after a kill, what it refuses."""

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from tiny import make_t5, make_tokenizer
from tuning_runs import arguments, graded_lines, harness_samples, refused, tune, validations
from users_tasks import SHAPES, make_rows, write_task
from warm_python import Running

from lm_eval_calibration import metrics
from lm_eval_calibration.tuning.adapter import with_adapter
from lm_eval_calibration.tuning.questions import load_questions
from lm_eval_calibration.tuning.settings import GradingSettings, Protocol
from lm_eval_calibration.tuning.training import last_checkpoint

VALIDATED = {"epoch", "auroc", "ece", "nll", "accuracy_drift"}


@pytest.mark.slow
def test_an_adapter_is_left_with_its_card_and_grades(tuned: Path) -> None:
    assert {path.name for path in tuned.iterdir()} == {
        *("adapter_model.safetensors", "adapter_config.json", "README.md"),
        *("graded.jsonl", "judged.json", "tuning.json"),
    }
    values = validations(tuned)
    assert [of_epoch["epoch"] for of_epoch in values] == [0, 1, 2]
    assert all(set(of_epoch) == VALIDATED for of_epoch in values)
    config = json.loads((tuned / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 32, 0.1)
    card = (tuned / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert "| untuned |" in card
    assert f"{values[-1]['ece']:.4f}" in card


def test_docs_to_test_on_are_none_that_were_graded(tuned: Path) -> None:
    judged = json.loads((tuned / "judged.json").read_text(encoding="utf-8"))
    assert set(judged) == {"trees_p_true_calibration", "trees_calibration"}
    graded = [line["doc_id"] for line in graded_lines(tuned)]
    assert set(graded).isdisjoint(judged["trees_calibration"])
    assert sorted([*graded, *judged["trees_calibration"]]) == list(range(80))
    assert "Which tree" not in (tuned / "graded.jsonl").read_text(encoding="utf-8")


def test_an_untrained_adapter_changes_nothing(model_folder: Path) -> None:
    lm = HFLM(pretrained=str(model_folder), device="cpu")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        before = lm.model(tokens).logits
        after = with_adapter(lm.model, Protocol()).eval()(tokens).logits
    assert torch.equal(before, after)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's, in the harness
def test_the_harness_loads_the_adapter(model_folder: Path, tuned: Path) -> None:
    base, lm = (HFLM(pretrained=str(model_folder), device="cpu", **more) for more in ({}, {"peft": str(tuned)}))
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert not torch.allclose(base.model(tokens).logits, lm.model(tokens).logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's, in the harness
def test_what_is_validated_is_what_the_harness_finds(model_folder: Path, trees: Path, tuned: Path) -> None:
    grading = GradingSettings(str(model_folder), "", ("trees",), 0.6, 20_000, include_path=str(trees))
    base = HFLM(pretrained=str(model_folder), device="cpu", batch_size=8)
    held_out = [q.doc_id for q in load_questions(grading, "kapoor", base)[0].questions if q.held_out]
    before, after = (
        [line["calibration"] for line in harness_samples(model_folder, trees, held_out, **more)]
        for more in ({}, {"peft": str(tuned)})
    )
    p_true = np.array([record["p_true"]["confidence"] for record in before])
    correct = np.array([record["correct"] for record in before])
    untuned, *epochs = validations(tuned)
    assert metrics.auroc(p_true, correct) == pytest.approx(untuned["auroc"], abs=1e-6)
    assert metrics.ece(p_true, correct) == pytest.approx(untuned["ece"], abs=1e-5)
    assert -np.mean(np.log(np.where(correct == 1, p_true, 1 - p_true))) == pytest.approx(untuned["nll"], abs=1e-4)
    kept = min(epochs, key=lambda epoch: epoch["nll"])
    drift = np.mean([record["correct"] for record in after]) - correct.mean()
    assert drift == pytest.approx(kept["accuracy_drift"], abs=1e-6)


@pytest.mark.slow
def test_bfloat16_models_are_trained_in_bfloat16(model_folder: Path, trees: Path, tmp_path: Path) -> None:
    tune(model_folder, trees, tmp_path / "out", "--model_args", "dtype=bfloat16", "--limit", "30")
    assert json.loads((tmp_path / "out" / "tuning.json").read_text(encoding="utf-8"))["result"]["dtype"] == "bfloat16"
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.float32"}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter_and_grades_can_be_used_again(
    model_folder: Path, trees: Path, tuned: Path, tmp_path: Path
) -> None:
    options = ("--epochs", "2", "--learning_rate", "0.01", "--graded", str(tuned))
    tune(model_folder, trees, tmp_path / "same", *options)
    tune(model_folder, trees, tmp_path / "other", *options, "--seed", "1")
    weights = [
        load_file(folder / "adapter_model.safetensors") for folder in (tuned, tmp_path / "same", tmp_path / "other")
    ]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert not all(weights[0][name].equal(weights[2][name]) for name in weights[0])
    for found, expected in zip(validations(tmp_path / "same"), validations(tuned), strict=True):
        assert found == pytest.approx(expected, abs=1e-12)
    assert (tuned / "graded.jsonl").read_bytes() == (tmp_path / "other" / "graded.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probe", pytest.param("lora-probe", marks=pytest.mark.slow)])
def test_a_probe_is_kept_as_numbers(model_folder: Path, trees: Path, tmp_path: Path, tuned: Path, method: str) -> None:
    tune(model_folder, trees, tmp_path / "out", "--method", method, "--graded", str(tuned))
    kept = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert len(kept["weight"]) == 32
    assert any(kept["weight"])
    has_adapter = (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert has_adapter == (method == "lora-probe")
    if has_adapter:
        assert all("lora_" in name for name in load_file(tmp_path / "out" / "adapter_model.safetensors"))
        config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
        assert not config["modules_to_save"]


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@contextmanager
def files_no_larger_than(n_bytes: int) -> Iterator[None]:
    """As on a disk that is full: writing more fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="files can't be limited here")
def test_a_killed_run_is_resumed_and_a_full_disk_costs_no_checkpoint(
    model_folder: Path, trees: Path, tuned: Path, tmp_path: Path, python: list[str]
) -> None:
    options = ("--epochs", "6", "--graded", str(tuned))
    tune(model_folder, trees, tmp_path / "whole", *options)

    output = tmp_path / "killed"
    command = ["-m", "lm_eval_calibration", *arguments(model_folder, trees, output, *options)]
    with Path(os.devnull).open("r+b") as nothing:
        run = Running(python[-1], command, cwd=str(tmp_path), env=dict(os.environ), files=[nothing.fileno()] * 3)
    deadline = time.monotonic() + 300
    while last_checkpoint(output / "checkpoints") is None:
        assert time.monotonic() < deadline
        assert run.wait(0) is None
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    kept = last_checkpoint(output / "checkpoints")
    assert kept is not None
    assert not (output / "adapter_model.safetensors").exists()

    with files_no_larger_than(10_000):
        message = refused(model_folder, trees, output, *options)
    assert "can't be written" in message
    assert "resumes from it" in message
    assert last_checkpoint(output / "checkpoints") == kept

    assert f"resumes from {kept.name}" in tune(model_folder, trees, output, *options)
    for found, expected in zip(validations(output), validations(tmp_path / "whole"), strict=True):
        assert found == pytest.approx(expected, abs=1e-3)
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (output, tmp_path / "whole")]
    assert all(weights[0][name].allclose(weights[1][name], atol=1e-5) for name in weights[0])


def test_a_checkpoint_whose_last_file_was_cut_short_is_not_resumed_from(tmp_path: Path) -> None:
    for step, text in ((5, "{}"), (10, '{"global_step": 10'), (15, "")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-20").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_a_folder_of_other_settings_or_of_a_finished_run_is_left_alone(
    model_folder: Path, trees: Path, tuned: Path
) -> None:
    before = (tuned / "adapter_model.safetensors").read_bytes()
    for options, words in (
        (("--epochs", "3", "--learning_rate", "0.01"), "epochs is 2, not 3"),
        (("--epochs", "2", "--learning_rate", "0.01"), "holds the finished run"),
    ):
        assert words in refused(model_folder, trees, tuned, *options)
    assert (tuned / "adapter_model.safetensors").read_bytes() == before


# --- what is refused -------------------------------------------------------------------------------------------------


def test_no_training_split(model_folder: Path, trees: Path, tmp_path: Path) -> None:
    error = refused(model_folder, trees, tmp_path / "out", has_fraction=False)
    assert "has no training split: --fit-fraction 0.5" in error


@pytest.mark.slow
def test_a_training_split_is_learned_from(model_folder: Path, tmp_path: Path) -> None:
    rows = make_rows(60)
    path = write_task(tmp_path, "trees", rows[:30], **SHAPES["letters"], training_split="train")
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows[20:])), encoding="utf-8")
    path.write_text(path.read_text().replace("    test:", f"    train: {tmp_path}/train.jsonl\n    test:"))
    printed = tune(model_folder, tmp_path, tmp_path / "out", has_fraction=False)
    assert "30 docs of its split 'train'" in printed
    assert "10 duplicates" in printed
    assert json.loads((tmp_path / "out" / "judged.json").read_text())["trees_calibration"] == list(range(30))


@pytest.mark.parametrize("words", ["all are right", "all are wrong"])
def test_answers_all_right_or_all_wrong(
    model_folder: Path, trees: Path, tuned: Path, tmp_path: Path, words: str
) -> None:
    head = (tuned / "graded.jsonl").read_text(encoding="utf-8").splitlines()[0]
    graded = graded_lines(tuned)
    golds = [row["answer"] for row in make_rows(80)]
    for line in graded:
        best = (golds[line["doc_id"]] + words.endswith("wrong")) % 4
        line["log_likelihoods"] = [0.0 if k == best else -1.0 for k in range(4)]
    (tmp_path / "graded.jsonl").write_text("\n".join([head, *map(json.dumps, graded)]), encoding="utf-8")
    assert words in refused(model_folder, trees, tmp_path / "out", "--graded", str(tmp_path))


def test_a_task_without_gold(model_folder: Path, tmp_path: Path) -> None:
    rows = make_rows(20)  # the harness itself refuses a task whose first doc has none
    write_task(tmp_path, "trees", [rows[0], *({**row, "answer": -100} for row in rows[1:])], **SHAPES["letters"])
    assert "no doc of its split 'test' that could be learned from has a sound gold label" in refused(
        model_folder, tmp_path, tmp_path / "out", "--fit-fraction", "0.3"
    )


@pytest.mark.slow
def test_a_module_that_does_not_exist(model_folder: Path, trees: Path, tuned: Path, tmp_path: Path) -> None:
    message = refused(model_folder, trees, tmp_path / "out", "--graded", str(tuned), "--target_modules", "q_porj")
    assert "q_porj" in message
    assert "c_attn" in message
    # The folder is still free, also for other settings.
    options = ("--graded", str(tuned), "--limit", "30", "--target_modules", "c_attn")
    assert "of 30 right" in tune(model_folder, trees, tmp_path / "out", *options)


def test_a_model_that_is_none(trees: Path, tmp_path: Path) -> None:
    assert "can't be loaded" in refused(tmp_path / "nothing", trees, tmp_path / "out")


def test_an_encoder_decoder(trees: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "t5")
    make_t5(tokenizer).save_pretrained(tmp_path / "t5")
    assert "encoder-decoder" in refused(tmp_path / "t5", trees, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fit-fraction", "1.5"), "--fit-fraction is 1.5"),
        (("--method", "lore"), "no method 'lore'"),
        (("--query", "x"), "no query 'x'"),
        (("--learning_rate", "0"), "--learning_rate is 0"),
        (("--tasks", ","), "name what to learn from"),
        (("--model_args", "peft=x"), "--model_args has peft"),
        (("--model_args", "dtype=float16"), "dtype=bfloat16"),
        (("--apply_chat_template",), "has no chat template"),
    ],
)
def test_options_without_meaning_for_this_model(
    model_folder: Path, trees: Path, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    assert words in refused(model_folder, trees, tmp_path / "out", *options)


@pytest.mark.slow
def test_grades_of_other_docs(model_folder: Path, trees: Path, tuned: Path, tmp_path: Path) -> None:
    kept = (tuned / "graded.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "graded.jsonl").write_text("\n".join(kept[:-1]), encoding="utf-8")
    message = refused(model_folder, trees, tmp_path / "out", "--graded", str(tmp_path))
    assert "has no grade of doc" in message
    message = refused(model_folder, trees, tmp_path / "out", "--graded", str(tuned), "--num_fewshot", "1")
    assert "was graded with num_fewshot None, not 1" in message
