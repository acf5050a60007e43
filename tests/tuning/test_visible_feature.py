"""Where answers are right exactly when a mark is in the question, a tuned model knows which of them are."""

import random
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from tiny import make_gpt2

from lm_eval_calibration.tasks.confidences.p_true_query import KADAVATH
from lm_eval_calibration.tuning.adapter import with_adapter
from lm_eval_calibration.tuning.examples import make_examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.questions import Answer, ChoiceQuestion
from lm_eval_calibration.tuning.settings import Protocol
from lm_eval_calibration.tuning.training import make_trainer, train


def make_graded(n: int) -> list[Answer]:
    """Answers to questions about nothing; those with a mark in front are right."""
    rng, graded = random.Random(0), []
    for i in range(n):
        is_marked, word = rng.random() < 0.5, "".join(rng.choices("abcdefgh", k=4))
        context, answer = f"{'##' if is_marked else '..'} {word}\nAnswer:", rng.randrange(2)
        choices = tuple((context, f" {letter}") for letter in "AB")
        queries = tuple(tuple((KADAVATH.prompt(*choice), c) for c in KADAVATH.continuations) for choice in choices)
        gold = answer if is_marked else 1 - answer
        question = ChoiceQuestion("marks", i, str(i), i % 3 == 0, choices, queries, gold)
        graded.append(question.answer(tuple(0.0 if k == answer else -1.0 for k in range(2))))
    return graded


@pytest.mark.slow
def test_it_is_learned(byte_tokenizer: Any, tmp_path: Path) -> None:
    lm = HFLM(pretrained=make_gpt2(byte_tokenizer), tokenizer=byte_tokenizer, backend="causal", device="cpu")
    examples = make_examples(make_graded(300), KADAVATH, lm)
    protocol = Protocol(epochs=4, batch_size=8, learning_rate=0.01, target_modules=("all-linear",))
    forward = Forward(lm, examples.fit[0].rows[0].tokens)
    trainer = make_trainer(with_adapter(lm.model, protocol), forward, examples, protocol, tmp_path)
    before, *_, after = train(trainer, tmp_path)
    assert before["ece"] > 0.02
    assert before["nll"] > 0.6
    assert after["auroc"] > 0.95
    assert after["ece"] < 0.05
