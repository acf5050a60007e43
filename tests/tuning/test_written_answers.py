"""Tuning on answers that the model writes: graded by the task's own metric, with the query of an evaluation run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from tuning_runs import METRIC, graded_lines, harness_samples, refused, tune, validations, with_lines

from lm_eval_calibration import metrics
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR
from lm_eval_calibration.tuning.examples import Collator, make_example
from lm_eval_calibration.tuning.loss import answers_stay, mean_divergence
from lm_eval_calibration.tuning.questions import NO_CHOICE, Answer, OpenQuestion


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's, in the harness
def test_grades_and_validation_are_those_of_the_harness(
    model_folder: Path, open_trees: Path, tuned_on_open: Path
) -> None:
    lines = graded_lines(tuned_on_open)
    samples = harness_samples(model_folder, open_trees, [line["doc_id"] for line in lines])
    assert [str(sample["resps"][0][0]) for sample in samples] == [line["text"] for line in lines]
    assert [sample["calibration"].get("correct") for sample in samples] == [line["correct"] for line in lines]
    tested = json.loads((tuned_on_open / "judged.json").read_text(encoding="utf-8"))["trees_p_true_calibration"]
    assert sorted([*tested, *(line["doc_id"] for line in lines)]) == list(range(60))

    # The held-out docs are the first fifth by hash; those that are neither right nor wrong are not among them.
    ordered = sorted(lines, key=lambda line: line["content"][16:])[: round(0.2 * len(lines))]
    held_out = {line["doc_id"] for line in ordered if line["correct"] is not None}
    before = [sample for sample in samples if sample["doc_id"] in held_out]
    p_true = np.array([sample["calibration"]["p_true"]["confidence"] for sample in before])
    correct = np.array([sample["calibration"]["correct"] for sample in before])
    untuned, *epochs = validations(tuned_on_open)
    assert metrics.ece(p_true, correct) == pytest.approx(untuned["ece"], abs=1e-5)
    assert -np.mean(np.log(np.where(correct == 1, p_true, 1 - p_true))) == pytest.approx(untuned["nll"], abs=1e-4)
    assert untuned["accuracy_drift"] == 0

    # An answer that is no longer written counts as wrong.
    kept = min(epochs, key=lambda epoch: epoch["nll"])
    after = harness_samples(model_folder, open_trees, sorted(held_out), peft=str(tuned_on_open))
    same = np.array([str(a["resps"][0][0]) == str(b["resps"][0][0]) for a, b in zip(after, before, strict=True)])
    assert kept["accuracy_drift"] == pytest.approx(np.mean(correct * same) - correct.mean(), abs=1e-6)
    assert not same.all()  # the learning rate is large
    n_between = sum(line["correct"] is None for line in lines)
    card = (tuned_on_open / "README.md").read_text(encoding="utf-8")
    assert f"| {len(lines) - len(held_out) - n_between} | {len(held_out)} |" in card
    assert "(An answer that the model writes is not written anew" in card


@pytest.mark.slow
def test_kept_answers_are_used_and_not_written_again(
    model_folder: Path, open_trees: Path, tuned_on_open: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the model answers again")

    monkeypatch.setattr("lm_eval_calibration.tuning.grading.grade", fail)
    options = ("--epochs", "2", "--learning_rate", "0.1", "--graded", str(tuned_on_open))
    tune(model_folder, open_trees, tmp_path / "same", *options)
    for values, expected in zip(validations(tmp_path / "same"), validations(tuned_on_open), strict=True):
        assert values == pytest.approx(expected, abs=1e-12)
    assert (tuned_on_open / "graded.jsonl").read_bytes() == (tmp_path / "same" / "graded.jsonl").read_bytes()


@pytest.mark.slow
def test_a_probe_learns_from_kept_answers_graded_by_the_metric_as_it_is_now(
    model_folder: Path, open_trees: Path, tuned_on_open: Path, tmp_path: Path
) -> None:
    tasks = with_lines(open_trees, tmp_path / "tasks")
    (tasks / "luck.py").write_text(METRIC.replace("number % 2", "(number + 1) % 2"), encoding="utf-8")
    tune(model_folder, tasks, tmp_path / "out", "--method", "probe", "--graded", str(tuned_on_open))
    for now, before in zip(graded_lines(tmp_path / "out"), graded_lines(tuned_on_open), strict=True):
        assert now["text"] == before["text"]
        assert now["correct"] == (None if before["correct"] is None else 1 - before["correct"])


@pytest.mark.slow
@pytest.mark.parametrize("line", ["description: 'Be brief.'", "generation_kwargs: {max_gen_toks: 3, until: []}"])
def test_answers_to_another_prompt_or_of_another_length_are_refused(
    model_folder: Path, open_trees: Path, tuned_on_open: Path, tmp_path: Path, line: str
) -> None:
    tasks = with_lines(open_trees, tmp_path / "tasks", line)
    error = refused(model_folder, tasks, tmp_path / "out", "--graded", str(tuned_on_open))
    assert "with the prompt that it has now" in error


@pytest.mark.slow
def test_other_queries_of_a_task_are_left_out_and_programs_run_only_when_confirmed(
    model_folder: Path, open_trees: Path, tuned_on_open: Path, tmp_path: Path
) -> None:
    lines = ("unsafe_code: true", "metadata: {calibration: {verbalized: true}}")
    tasks = with_lines(open_trees, tmp_path / "tasks", *lines)
    assert "add --confirm_run_unsafe_code" in refused(model_folder, tasks, tmp_path / "out")
    printed = tune(model_folder, tasks, tmp_path / "out", "--confirm_run_unsafe_code", "--learning_rate", "0.1")
    assert "--samples" in printed
    assert printed.count("--confirm_run_unsafe_code") == 2  # in both commands that test
    assert graded_lines(tmp_path / "out") == graded_lines(tuned_on_open)


def test_several_answers_to_a_doc_are_refused(model_folder: Path, open_trees: Path, tmp_path: Path) -> None:
    tasks = with_lines(open_trees, tmp_path / "tasks", "repeats: 4")
    assert "trees_calibration has 4 answers to each doc" in refused(model_folder, tasks, tmp_path / "out")


def make_written(text: str, correct: int | None = 1) -> Answer:
    request = Instance("generate_until", {}, (context := "Name a tree:", {}), 0)
    request.follow_ups = lambda text: [  # as the task sets it
        Instance("x", {}, (KAPOOR.prompt(context, text), c), i) for i, c in enumerate(KAPOOR.continuations)
    ]
    return OpenQuestion("t", 3, "c", True, request, source=None).answer(text, correct)  # type: ignore[arg-type]


def test_the_answer_s_tokens_are_those_that_are_to_stay(gpt2_lm: Any) -> None:
    example = make_example(make_written(" an oak"), KAPOOR, gpt2_lm, 1000, with_choices=True)
    (row,) = (row for row in example.rows if row.answer)
    assert [row.tokens[i + 1] for i in row.answer] == gpt2_lm.tok_encode(" an oak")
    assert example.gold == NO_CHOICE
    assert not any(row.choices for row in example.rows)


def test_an_empty_answer_has_nothing_to_stay(gpt2_lm: Any) -> None:
    graded = [make_written(""), make_written(" oak")]
    examples = [make_example(g, KAPOOR, gpt2_lm, 1000, with_choices=True) for g in graded]
    assert not any(row.answer for row in examples[0].rows)
    batch = Collator(0)(examples)
    assert set(batch["answer"][:, 2].tolist()) == {1}
    one, other = torch.randn(2, len(batch["answer"]), 9)
    alone = mean_divergence(one, other, torch.zeros(len(one), dtype=torch.long), 1)
    assert float(mean_divergence(one, other, batch["answer"][:, 2], 2)) == pytest.approx(float(alone) / 2)
    assert answers_stay(one, other, batch["answer"][:, 2], 2)[0] == 1


def test_an_answer_that_is_neither_right_nor_wrong_is_no_example(gpt2_lm: Any) -> None:
    with pytest.raises(ValueError, match="doc 3 of t is neither right nor wrong"):
        make_example(make_written(" oak", None), KAPOOR, gpt2_lm, 1000, with_choices=False)


def test_answers_stay_if_every_most_probable_token_does() -> None:
    one = torch.eye(4)[[0, 1, 2, 3]]
    other = torch.eye(4)[[0, 1, 3, 3]]
    assert answers_stay(one, other, torch.tensor([0, 0, 1, 1]), 2).tolist() == [1, 0]
