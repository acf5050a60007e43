"""Tuning on answers that the model writes: graded by the task's own metric, asked about as the judging run asks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from test_tune_command import refused, result_of, tune

from lm_eval_calibration import metrics
from lm_eval_calibration.tasks import CalibrationTaskManager
from lm_eval_calibration.tasks.confidences.p_true_query import KAPOOR
from lm_eval_calibration.tuning.examples import Collator, make_example
from lm_eval_calibration.tuning.loss import answers_stay, mean_divergence
from lm_eval_calibration.tuning.questions import NO_CHOICE, Answer, OpenQuestion

METRIC = """
import zlib

def is_lucky(references, predictions, **_):
    number = zlib.crc32(f"{references[0]} {predictions[0]}".encode())
    return 0.5 if references[0] in ("7", "8") else float(number % 2)
"""

TASK = """
task: trees
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/docs.jsonl}}
  cache_dir: {folder}/cache
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{number}}}}"
generation_kwargs: {{until: ["\\n\\n\\n"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - metric: !function luck.is_lucky
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task `trees`, whose answers are written; whether they are right looks like chance."""
    folder = tmp_path_factory.mktemp("written")
    docs = [json.dumps({"question": f"Name tree {i * i} of {i}:", "number": str(i)}) for i in range(60)]
    (folder / "docs.jsonl").write_text("\n".join(docs), encoding="utf-8")
    (folder / "luck.py").write_text(METRIC, encoding="utf-8")
    (folder / "trees.yaml").write_text(TASK.format(folder=folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tuned(model_folder: Path, written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tuned") / "adapter"
    result = tune(model_folder, written, output, "--epochs", "2", "--learning_rate", "0.1")
    assert result.exit_code == 0, result.output
    assert "neither right nor wrong, left out" in result.output
    return output


def graded_lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "graded.jsonl").read_text(encoding="utf-8").splitlines()[1:]]


def harness(model_folder: Path, tasks: Path, docs: list[int], **options: Any) -> Any:
    name = "trees_p_true_calibration"
    results = simple_evaluate(
        model=HFLM(pretrained=str(model_folder), device="cpu", batch_size=8, **options),
        tasks=[name],
        task_manager=CalibrationTaskManager(include_path=str(tasks), include_defaults=False),
        samples={name: docs},
        bootstrap_iters=0,
    )
    return results["samples"][name]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's, in the harness
def test_grades_and_validation_are_those_of_the_harness(model_folder: Path, written: Path, tuned: Path) -> None:
    lines = graded_lines(tuned)
    samples = harness(model_folder, written, [line["doc_id"] for line in lines])
    assert [str(sample["resps"][0][0]) for sample in samples] == [line["text"] for line in lines]
    assert [sample["calibration"].get("correct") for sample in samples] == [line["correct"] for line in lines]
    judged = json.loads((tuned / "judged.json").read_text(encoding="utf-8"))["trees_p_true_calibration"]
    assert sorted([*judged, *(line["doc_id"] for line in lines)]) == list(range(60))

    # The held-out docs are the first fifth by hash; those that are neither right nor wrong are not among them.
    ordered = sorted(lines, key=lambda line: line["content"][16:])[: round(0.2 * len(lines))]
    held_out = {line["doc_id"] for line in ordered if line["correct"] is not None}
    before = [sample for sample in samples if sample["doc_id"] in held_out]
    p_true = np.array([sample["calibration"]["p_true"]["confidence"] for sample in before])
    correct = np.array([sample["calibration"]["correct"] for sample in before])
    untuned, *tuned_ones = result_of(tuned)
    assert metrics.ece(p_true, correct) == pytest.approx(untuned["ece"], abs=1e-5)
    assert -np.mean(np.log(np.where(correct == 1, p_true, 1 - p_true))) == pytest.approx(untuned["nll"], abs=1e-4)
    assert untuned["accuracy_drift"] == 0

    # An answer that is no longer written counts as wrong.
    kept = min(tuned_ones, key=lambda found: found["nll"])
    after = harness(model_folder, written, sorted(held_out), peft=str(tuned))
    same = np.array([str(a["resps"][0][0]) == str(b["resps"][0][0]) for a, b in zip(after, before, strict=True)])
    assert kept["accuracy_drift"] == pytest.approx(np.mean(correct * same) - correct.mean(), abs=1e-6)
    assert not same.all()  # the learning rate is large
    n_between = sum(line["correct"] is None for line in lines)
    assert f"| {len(lines) - len(held_out) - n_between} | {len(held_out)} |" in (tuned / "README.md").read_text("utf-8")
    assert "(An answer that the model writes is not written anew" in (tuned / "README.md").read_text(encoding="utf-8")


def test_grades_are_used_again(model_folder: Path, written: Path, tuned: Path, tmp_path: Path) -> None:
    options = ("--epochs", "2", "--learning_rate", "0.1", "--graded", str(tuned))
    assert tune(model_folder, written, tmp_path / "same", *options).exit_code == 0
    for found, expected in zip(result_of(tmp_path / "same"), result_of(tuned), strict=True):
        assert found == pytest.approx(expected, abs=1e-12)
    assert (tuned / "graded.jsonl").read_bytes() == (tmp_path / "same" / "graded.jsonl").read_bytes()


def test_kept_answers_are_judged_by_the_metric_as_it_is_now(
    model_folder: Path, written: Path, tuned: Path, tmp_path: Path
) -> None:
    tasks = with_line(written, "", tmp_path)
    (tasks / "luck.py").write_text(METRIC.replace("number % 2", "(number + 1) % 2"), encoding="utf-8")
    result = tune(model_folder, tasks, tmp_path / "out", "--graded", str(tuned))
    assert result.exit_code == 0, result.output
    for now, before in zip(graded_lines(tmp_path / "out"), graded_lines(tuned), strict=True):
        assert now["text"] == before["text"]
        assert now["correct"] == (None if before["correct"] is None else 1 - before["correct"])


def test_kept_answers_are_not_written_again(
    model_folder: Path, written: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the model is asked")

    monkeypatch.setattr("lm_eval_calibration.tuning.grading.grade", fail)
    result = tune(model_folder, written, tmp_path / "out", "--graded", str(tuned))
    assert result.exit_code == 0, result.output


def test_answers_to_another_prompt_or_of_another_length_are_refused(
    model_folder: Path, written: Path, tuned: Path, tmp_path: Path
) -> None:
    for number, line in enumerate(("description: 'Be brief.'", "generation_kwargs: {max_gen_toks: 3, until: []}")):
        folder = tmp_path / str(number)
        folder.mkdir()
        tasks = with_line(written, line, folder)
        said = refused(model_folder, tasks, folder / "out", "--graded", str(tuned))
        assert "with the prompt that it has now" in said


def test_a_probe_learns_from_written_answers(model_folder: Path, written: Path, tuned: Path, tmp_path: Path) -> None:
    result = tune(model_folder, written, tmp_path / "out", "--method", "probe", "--graded", str(tuned))
    assert result.exit_code == 0, result.output


def with_line(written: Path, line: str, folder: Path) -> Path:
    """A copy of the task with another line in its file."""
    for path in written.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    yaml = folder / "trees.yaml"
    yaml.write_text(f"{yaml.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    return folder


def test_what_else_a_task_asks_is_not_asked(model_folder: Path, written: Path, tuned: Path, tmp_path: Path) -> None:
    tasks = with_line(written, "metadata: {calibration: {verbalized: true}}", tmp_path)
    result = tune(model_folder, tasks, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert graded_lines(tmp_path / "out") == graded_lines(tuned)


def test_several_answers_to_a_doc_are_refused(model_folder: Path, written: Path, tmp_path: Path) -> None:
    tasks = with_line(written, "repeats: 4", tmp_path)
    assert "trees_calibration has 4 answers to a doc" in refused(model_folder, tasks, tmp_path / "out")


def test_programs_are_not_run_unasked(model_folder: Path, written: Path, tmp_path: Path) -> None:
    with_line(written, "unsafe_code: true", tmp_path)
    assert "add --confirm_run_unsafe_code" in refused(model_folder, tmp_path, tmp_path / "out")
    options = ("--confirm_run_unsafe_code", "--learning_rate", "0.1")
    result = tune(model_folder, tmp_path, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "--samples" in result.output
    assert result.output.count("--confirm_run_unsafe_code") == 2  # in both commands that judge


class Asks:
    """A task that puts the query behind an answer."""

    def queries_about(self, request: Instance, text: str) -> list[Instance]:
        prompt = KAPOOR.prompt(request.args[0], text)
        return [Instance("x", {}, (prompt, c), i) for i, c in enumerate(KAPOOR.continuations)]


def make_written(text: str, correct: int | None = 1) -> Answer:
    request = Instance("generate_until", {}, ("Name a tree:", {}), 0)
    return OpenQuestion("t", 3, "c", True, request, Asks()).answer(text, correct)  # type: ignore[arg-type]


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
