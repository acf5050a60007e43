"""What the model is asked to be graded is what the judging run asks it."""

from pathlib import Path

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM

from lm_eval_calibration.tasks import CalibrationTaskManager
from lm_eval_calibration.tuning.questions import load_questions
from lm_eval_calibration.tuning.settings import GradingSettings

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


@pytest.mark.slow
@pytest.mark.parametrize("is_chat", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_few_shot_prompts_are_those_of_the_judging_run(model_folder: Path, trees: Path, is_chat: bool) -> None:
    lm, name = HFLM(str(model_folder), device="cpu", batch_size=4, max_length=4096), "trees_p_true_calibration"
    lm.tokenizer.chat_template = CHAT
    options = {"num_fewshot": 2, "apply_chat_template": is_chat}
    grading = GradingSettings(str(model_folder), "", ("trees",), 0.5, 4, include_path=str(trees), **options)  # type: ignore[arg-type]
    (task,) = load_questions(grading, "kapoor", lm)
    questions = {question.doc_id: question for question in task.questions}
    results = simple_evaluate(
        model=lm,
        tasks=[name],
        task_manager=CalibrationTaskManager(include_path=str(trees), include_defaults=False),
        samples={name: sorted(questions)},
        bootstrap_iters=0,
        **options,  # type: ignore[arg-type]
    )
    samples = results["samples"][name]
    assert len(samples) == 4
    for sample in samples:
        question = questions[sample["doc_id"]]
        pairs = [tuple(pair[:2]) for pair in sample["arguments"]]
        assert pairs[:4] == list(question.choices)
        assert pairs[4:] == list(question.queries[int(np.argmax(sample["calibration"]["log_likelihoods"]))])
        assert ("<user>" in pairs[0][0]) == is_chat
